//! A store that fills up: ENOSPC before data is accepted, what was accepted stays, and deleting
//! makes it work again. Needs root, for the loop image.

use std::fs::{self, File};
use std::io::Write;

use runvault_tests::Site;
use runvault_tests::image::Image;
use runvault_tests::tools::root_for;

#[test]
fn a_full_store_keeps_what_it_accepted() {
    if !root_for("a loop image") {
        return;
    }
    let image = Image::new("ext4", 96);
    let site = Site::below(image.path());
    let mount = site.mount();
    fs::create_dir(mount.path("run")).expect("a run");
    let piece: Vec<u8> = (0..256 << 10).map(|i| (i % 251) as u8).collect();
    let mut accepted = Vec::new();
    let full = 'filling: loop {
        let path = mount.path(format!("run/file-{}", accepted.len()));
        let mut file = match File::create(&path) {
            Ok(file) => file,
            Err(error) => break error,
        };
        accepted.push(0usize);
        for _ in 0..16 {
            if let Err(error) = file.write_all(&piece) {
                break 'filling error;
            }
            *accepted.last_mut().expect("a file") += piece.len();
        }
        assert!(accepted.len() < 100, "the image never fills");
    };
    assert_eq!(full.raw_os_error(), Some(libc::ENOSPC), "{full}");
    for (n, len) in accepted.iter().enumerate() {
        let bytes = fs::read(mount.path(format!("run/file-{n}"))).expect("what was accepted");
        assert!(bytes.len() >= *len, "file {n}: {} of {len} bytes", bytes.len());
        assert!(bytes.iter().enumerate().all(|(i, b)| *b == (i % (256 << 10) % 251) as u8), "file {n}");
    }
    fs::remove_file(mount.path("run/file-0")).expect("deleting works on a full store");
    fs::remove_file(mount.path("run/file-1")).expect("deleting works on a full store");
    let mut file = File::create(mount.path("run/again")).expect("room again");
    file.write_all(&piece).expect("room again");
    file.sync_all().expect("room again");
    drop(file);
    mount.unmount();
    let again = site.mount();
    assert_eq!(fs::read(again.path("run/again")).expect("read"), piece);
    for (n, len) in accepted.iter().enumerate().skip(2) {
        assert!(fs::read(again.path(format!("run/file-{n}"))).expect("read").len() >= *len);
    }
    again.unmount();
}
