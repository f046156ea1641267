//! A mount that may have few files open.

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};

use runvault_tests::tools::run;
use runvault_tests::{Site, programs};

const FEW: u32 = 256;
const WIDE: usize = 400;

#[test]
fn only_what_programs_hold_open_takes_descriptors() {
    let site = Site::new();
    let deep = || site.builder().args(["--run-depth", "2"]);
    let mount = deep().descriptors(FEW).mount();
    // More directories, in more runs, than may be open.
    for n in 0..40 {
        fs::create_dir_all(mount.path(format!("MiSeq/{n}"))).expect("a run");
        fs::write(mount.path(format!("MiSeq/{n}/file")), n.to_string()).expect("a file");
    }
    let wide = mount.path("MiSeq/wide");
    let content = |n: usize| n.to_string().repeat(n);
    for n in 0..WIDE {
        fs::create_dir_all(wide.join(n.to_string())).expect("a directory");
        fs::write(wide.join(format!("{n}/file")), content(n)).expect("a file");
    }
    for n in 0..WIDE {
        assert_eq!(fs::read_to_string(wide.join(format!("{n}/file"))).expect("read"), content(n));
        assert_eq!(fs::read_dir(wide.join(n.to_string())).expect("a listing").count(), 1);
    }
    // Programs that hold more files than it may have get an error for the next one, and nothing is lost.
    let mut held = Vec::new();
    let refused = loop {
        match File::create_new(wide.join(format!("held {}", held.len()))) {
            Ok(file) => held.push(file),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.raw_os_error(), Some(libc::EMFILE));
    assert!(held.len() > 60, "only {}", held.len());
    for (n, file) in held.iter_mut().enumerate() {
        file.write_all(content(n).as_bytes()).expect("what is open is written");
    }
    let files = held.len();
    drop(held);
    let until = Instant::now() + Duration::from_secs(10);
    while File::create(wide.join("again")).is_err() {
        assert!(Instant::now() < until, "nothing can be opened any more");
        std::thread::sleep(Duration::from_millis(20));
    }
    let run = mount.path("MiSeq/programs");
    fs::create_dir(&run).expect("a run");
    let left = programs::beside_each_other(&run, Duration::from_secs(4));
    mount.unmount();

    let mount = deep().mount();
    left.verify(&mount.path("MiSeq/programs"));
    let wide = mount.path("MiSeq/wide");
    for n in 0..files {
        assert_eq!(fs::read_to_string(wide.join(format!("held {n}"))).expect("read"), content(n));
    }
    mount.unmount();
}

/// As hard a limit as many a machine has.
const USUAL: u32 = 1024;
const RUNS: usize = 60;
const DIRECTORIES: usize = 40;

#[test]
fn directories_of_many_sealed_runs_take_few_descriptors() {
    let site = Site::in_memory();
    let mount = site.mount();
    let name = |n: usize| format!("run {n}");
    let file = |n: usize, dir: usize| format!("{}/{dir}/file", name(n));
    let each = || (0..RUNS).flat_map(|n| (0..DIRECTORIES).map(move |dir| (n, dir)));
    for (n, dir) in each() {
        let path = mount.path(file(n, dir));
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, file(n, dir)).expect("a file");
    }
    mount.unmount();
    for n in 0..RUNS {
        run(site.command(&["seal"]).arg(&site.store).arg(name(n)));
    }
    let mount = site.builder().arg("--read-only").descriptors(USUAL).mount();
    for _ in 0..2 {
        for (n, dir) in each() {
            let found = fs::read_to_string(mount.path(file(n, dir)));
            assert_eq!(found.unwrap_or_else(|e| panic!("{}: {e}", file(n, dir))), file(n, dir));
        }
    }
    let open = fs::read_dir(format!("/proc/{}/fd", mount.pid())).expect("the process").count();
    assert!(open < USUAL as usize / 2, "{open} are open, and nobody uses any");
    mount.unmount();
}
