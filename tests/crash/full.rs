//! A store that fills up: ENOSPC before data is accepted, what was accepted stays, and deleting
//! makes it work again. Needs root, for the loop image.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use runvault_tests::Site;
use runvault_tests::image::Image;
use runvault_tests::tools::{root_for, run};

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

#[test]
fn a_wholly_full_store_is_emptied_by_a_new_mount() {
    if !root_for("a loop image") {
        return;
    }
    for kind in ["ext4", "xfs", "btrfs"] {
        let image = Image::new(kind, if kind == "xfs" { 320 } else { 128 });
        // The state folder has its room elsewhere, as it is meant to.
        let mut site = Site::in_memory();
        let moved = image.path().join("store");
        run(Command::new("cp").arg("-a").arg(&site.store).arg(&moved));
        site.store = moved;
        let mount = site.mount();
        fs::create_dir(mount.path("run")).expect("a run");
        for n in 0..2 {
            fs::write(mount.path(format!("run/{n}")), vec![n; 4 << 20]).expect("a file");
        }
        mount.unmount();
        fill(&image.path().join("filler"));
        let mount = site.mount();
        assert_eq!(fs::read(mount.path("run/1")).expect("read"), vec![1; 4 << 20], "{kind}");
        let full = fs::write(mount.path("run/new"), b"x").expect_err("no room");
        assert_eq!(full.raw_os_error(), Some(libc::ENOSPC), "{kind}: {full}");
        fs::remove_file(mount.path("run/0")).unwrap_or_else(|e| panic!("{kind}: {e}"));
        fs::write(mount.path("run/new"), vec![3; 1 << 20]).unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert_eq!(fs::read(mount.path("run/new")).expect("read"), vec![3; 1 << 20], "{kind}");
        mount.unmount();
    }
}

/// Takes every block that is free.
pub fn fill(path: &Path) {
    let mut file = File::create(path).expect("a file");
    for piece in [1 << 20, 4096, 1] {
        let bytes = vec![0x5a; piece];
        while file.write_all(&bytes).and_then(|()| file.sync_data()).is_ok() {}
    }
}
