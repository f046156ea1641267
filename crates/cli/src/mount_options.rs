//! What `-o` and mount(8) may say, and what `mount` makes of it.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use crate::args::{Alarms, Cli, Command, Mount, SealWhen};
use crate::exit::{Exit, refuse, refuse_with};

/// What a mount does, from flags and `-o` together.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Write nothing.
    pub read_only: bool,
    /// Other users may use it.
    pub allow_other: bool,
    /// Passed on to the kernel.
    pub kernel: Vec<String>,
    /// Owner, group and the mode bits kept, shown for everything; `None`: the store's.
    pub owner: Option<(u32, u32, u32)>,
    shown: Shown,
    /// The command line with what `-o` said of it filled in.
    pub mount: Mount,
}

/// What mount(8), fstab and systemd write for their own use, what is so anyway, and the times of access
/// that FUSE leaves to the file system.
const OTHERS: [&str; 18] = [
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "nosuid",
    "nodev",
    "silent",
    "default_permissions",
    "relatime",
    "norelatime",
    "strictatime",
    "nodiratime",
];

/// Reads `-o` into the rest of the command line.
///
/// # Errors
/// Exit 2: a name that is unknown here, a value that is missing or wrong.
pub fn resolve(mount: &Mount) -> Result<Options> {
    let mut options = Options {
        read_only: mount.read_only,
        allow_other: mount.allow_other,
        mount: mount.clone(),
        ..Options::default()
    };
    for option in mount.options.iter().filter(|option| !option.is_empty()) {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option.as_str(), None),
        };
        apply(&mut options, name, value)?;
    }
    require_keyless(&options)?;
    // Whether a key file is a reader's the store says.
    if options.mount.who.identity.is_none() {
        options.acts_for(false)?;
    }
    Ok(options)
}

impl Options {
    /// What follows from whose key it is: a reader's mount only reads, and of owner, group and mode shows what it was
    /// told, never what lies in the store.
    ///
    /// # Errors
    /// Exit 2: options of mounts that only read, for one that writes.
    pub fn acts_for(&mut self, reader: bool) -> Result<()> {
        self.read_only |= reader;
        let named = self.shown != Shown::default();
        if !self.read_only {
            return self.require_reading(named);
        }
        self.owner = (reader || named).then(|| self.shown.owner());
        Ok(())
    }

    fn require_reading(&self, named: bool) -> Result<()> {
        if named {
            return Err(refuse(Exit::Usage, "-o uid=, gid= and umask= are for read-only mounts (-o ro)"));
        }
        if self.mount.open {
            return Err(refuse_with(
                Exit::Usage,
                "--open is for mounts that only read: one that writes shows open runs anyway",
                "with --read-only, or with a reader's key (--identity)",
            ));
        }
        Ok(())
    }
}

/// Of a gateway that needs no passphrase: what says otherwise is a mistake.
fn require_keyless(options: &Options) -> Result<()> {
    let mount = &options.mount;
    let patience = [mount.quiet, mount.drained, mount.abandoned];
    let needs_ingest = mount.seal.is_some()
        || patience.iter().any(Option::is_some)
        || mount.no_resume_key
        || mount.seal_limit.is_some()
        || mount.alarms != Alarms::default();
    let clash = match () {
        () if !mount.ingest && needs_ingest => {
            return Err(refuse(
                Exit::Usage,
                "-o seal=, quiet=, drained=, abandoned=, seal-limit=, no-resume-key, exec=, metrics= and alarm-...= are for -o ingest",
            ));
        }
        () if !mount.ingest => return Ok(()),
        () if options.read_only => "ro",
        () if mount.open => "open",
        () if mount.who.identity.is_some() => "identity",
        () if mount.who.unlock.names_a_passphrase() => "a passphrase",
        () if mount.who.token.pkcs11_module.is_some() => "a token",
        () => return Ok(()),
    };
    Err(refuse(Exit::Usage, format!("ingest and {clash} exclude each other")))
}

fn apply(options: &mut Options, name: &str, value: Option<&str>) -> Result<()> {
    let (mount, shown) = (&mut options.mount, &mut options.shown);
    match (name, value) {
        ("ro", None) => options.read_only = true,
        // fstab's default; `--read-only` on the command line still stands.
        ("rw", None) => options.read_only = mount.read_only,
        ("allow_other", None) => options.allow_other = true,
        ("open", None) => mount.open = true,
        ("ingest", None) => mount.ingest = true,
        ("no-resume-key", None) => mount.no_resume_key = true,
        ("seal", Some(v)) => {
            mount.seal = Some(SealWhen::from_str(v, false).map_err(|_| bad_value(name, v))?);
        }
        ("quiet", Some(v)) => mount.quiet = Some(time(name, v)?),
        ("seal-limit", Some(v)) => match number(name, v, 10)? {
            0 => return Err(bad_value(name, v)),
            limit => mount.seal_limit = Some(limit.into()),
        },
        ("drained", Some(v)) => mount.drained = Some(time(name, v)?),
        ("abandoned", Some(v)) => mount.abandoned = Some(time(name, v)?),
        ("exec", Some(v)) => mount.alarms.exec = Some(path(name, v)?),
        ("metrics", Some(v)) => mount.alarms.metrics = Some(path(name, v)?.into_os_string().into()),
        ("alarm-unsealed", Some(v)) => mount.alarms.alarm_unsealed = Some(time(name, v)?),
        ("alarm-stuck", Some(v)) => mount.alarms.alarm_stuck = Some(time(name, v)?),
        ("alarm-lease", Some(v)) => mount.alarms.alarm_lease = Some(time(name, v)?),
        ("alarm-slow", Some(v)) => mount.alarms.alarm_slow = Some(time(name, v)?),
        ("alarm-full", Some(v)) => mount.alarms.alarm_full = Some(time(name, v)?),
        ("alarm-clock", Some(v)) => mount.alarms.alarm_clock = Some(time(name, v)?),
        ("alarm-free", Some(v)) => match number(name, v, 10)? {
            percent @ 0..=90 => mount.alarms.alarm_free = Some(percent),
            _ => return Err(bad_value(name, v)),
        },
        ("allow-readable-secret", None) => mount.who.unlock.allow_readable_secret = true,
        ("suid" | "dev", None) => {
            return Err(refuse(Exit::Usage, format!("-o {name}: a vault is always mounted nosuid,nodev")));
        }
        (name, None) if OTHERS.contains(&name) => {}
        (name, None) if runvault_fuse::is_kernel_option(name) => options.kernel.push(name.to_owned()),
        (name, _) if name.starts_with("x-") || name.starts_with("X-") || name == "comment" => {}
        ("identity", Some(v)) => mount.who.identity = Some(path(name, v)?),
        ("passphrase-file", Some(v)) => mount.who.unlock.passphrase_file = Some(path(name, v)?),
        ("passphrase-fd", Some(v)) => mount.who.unlock.passphrase_fd = Some(number(name, v, 10)?),
        ("pkcs11-module", Some(v)) => mount.who.token.pkcs11_module = Some(path(name, v)?),
        ("pin-file", Some(v)) => mount.who.token.pin_file = Some(path(name, v)?),
        ("custody", Some(v)) => mount.who.apart.custody = Some(path(name, v)?),
        ("state", Some(v)) => mount.who.state = Some(path(name, v)?),
        ("log", Some("")) => return Err(bad_value(name, "")),
        ("log", Some(v)) => mount.log = Some(v.to_owned()),
        ("run-depth", Some(v)) => match number(name, v, 10)? {
            depth @ 1..=8 => mount.run_depth = Some(depth),
            _ => return Err(bad_value(name, v)),
        },
        ("uid", Some(v)) => shown.uid = Some(number(name, v, 10)?),
        ("gid", Some(v)) => shown.gid = Some(number(name, v, 10)?),
        ("umask", Some(v)) => match number(name, v, 8)? {
            mask @ 0..=0o777 => shown.umask = Some(mask),
            _ => return Err(bad_value(name, v)),
        },
        _ => return Err(unknown(name)),
    }
    Ok(())
}

/// Owner, group and mask that a reader's mount shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shown {
    uid: Option<u32>,
    gid: Option<u32>,
    umask: Option<u32>,
}

impl Shown {
    fn owner(&self) -> (u32, u32, u32) {
        let uid = self.uid.unwrap_or_else(|| rustix::process::geteuid().as_raw());
        let gid = self.gid.unwrap_or_else(|| rustix::process::getegid().as_raw());
        (uid, gid, 0o7777 & !self.umask.unwrap_or(0o022))
    }
}

fn path(name: &str, value: &str) -> Result<PathBuf> {
    if value.is_empty() { Err(bad_value(name, value)) } else { Ok(PathBuf::from(value)) }
}

fn number(name: &str, value: &str, radix: u32) -> Result<u32> {
    u32::from_str_radix(value, radix).map_err(|_| bad_value(name, value))
}

fn time(name: &str, value: &str) -> Result<Duration> {
    humantime::parse_duration(value).map_err(|_| bad_value(name, value))
}

fn bad_value(name: &str, value: &str) -> anyhow::Error {
    refuse(Exit::Usage, format!("-o {name}={value}: not a usable value"))
}

fn unknown(name: &str) -> anyhow::Error {
    refuse_with(
        Exit::Usage,
        format!("-o {name}: unknown mount option"),
        "runvault mount --help lists those that exist",
    )
}

/// Whether the program was called as a mount(8) helper.
pub fn is_helper(name: &OsStr) -> bool {
    let base = std::path::Path::new(name).file_name().unwrap_or(name);
    base == "mount.runvault" || base == "mount.fuse.runvault"
}

/// mount(8)'s conventions: `SOURCE TARGET [-sfnv] [-N NS] [-t TYPE] [-o OPTIONS]`.
#[derive(Debug, Parser)]
#[command(name = "mount.runvault", about = "Helper of mount(8) for runvault", version)]
#[command(after_help = "Examples:\n  mount -t runvault -o passphrase-file=/root/pass /srv/store /mnt/runs")]
struct Helper {
    /// The store
    source: PathBuf,
    /// The mount point
    target: PathBuf,
    /// Tolerate unknown options
    #[arg(short)]
    sloppy: bool,
    /// Check everything that needs no key, mount nothing
    #[arg(short)]
    fake: bool,
    /// Write no mtab (there is none)
    #[arg(short)]
    no_mtab: bool,
    /// Say what is done
    #[arg(short)]
    verbose: bool,
    /// Read-only
    #[arg(short = 'r')]
    read_only: bool,
    /// Read-write
    #[arg(short = 'w', conflicts_with = "read_only")]
    write: bool,
    /// File system type, as mount(8) passes it on
    #[arg(short = 't', value_name = "TYPE")]
    fs_type: Option<String>,
    /// Mount options
    #[arg(short = 'o', value_delimiter = ',')]
    options: Vec<String>,
}

/// A command line, however it came.
pub struct Call {
    /// The same as a `mount` command.
    pub cli: Cli,
    /// Check only.
    pub fake: bool,
}

/// Reads a helper call.
///
/// # Errors
/// clap's own, for usage, help and version.
pub fn parse_helper(args: Vec<OsString>) -> std::result::Result<Call, clap::Error> {
    let helper = Helper::try_parse_from(args)?;
    let mut mount = Mount {
        store: helper.source,
        mount_point: helper.target,
        read_only: helper.read_only,
        options: helper.options,
        ..Mount::default()
    };
    if helper.sloppy {
        mount.options.retain(|option| known(option));
    }
    if helper.verbose {
        // A verbose mount(8) wants to see it; nothing secret is in a command line.
        let text = format!("runvault mount {} {}", mount.store.display(), mount.mount_point.display());
        // Nobody listens on a closed standard error.
        let _ = crate::output::error_line(&text);
    }
    Ok(Call { cli: Cli { command: Command::Mount(Box::new(mount)) }, fake: helper.fake })
}

fn known(option: &str) -> bool {
    let alone = Mount { options: vec![option.to_owned(), "ro".to_owned()], ..Mount::default() };
    resolve(&alone).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &str) -> Result<Options> {
        let options = options.split(',').map(str::to_owned).collect();
        resolve(&Mount { options, ..Mount::default() })
    }

    #[test]
    fn an_fstab_line_is_understood() {
        let o =
            of("rw,_netdev,x-systemd.automount,noatime,user,noauto,nosuid,nodev,allow_other,identity=/k,\
                    passphrase-file=/p,state=/s,run-depth=2,log=/l,pkcs11-module=/m.so,pin-file=/n")
            .unwrap();
        assert!(o.allow_other && !o.read_only);
        assert_eq!(o.kernel, ["noatime"]);
        assert_eq!(o.mount.who.identity.unwrap().to_str(), Some("/k"));
        assert_eq!(o.mount.who.unlock.passphrase_file.unwrap().to_str(), Some("/p"));
        let token = o.mount.who.token;
        assert_eq!(token.pkcs11_module.unwrap().to_str(), Some("/m.so"));
        assert_eq!(token.pin_file.unwrap().to_str(), Some("/n"));
        assert_eq!(o.mount.who.state.unwrap().to_str(), Some("/s"));
        assert_eq!((o.mount.run_depth, o.mount.log.as_deref()), (Some(2), Some("/l")));
    }

    #[test]
    fn unknown_names_and_bad_values_are_usage_errors() {
        for bad in [
            "nonsense",
            "suid",
            "dev",
            "identity",
            "identity=",
            "run-depth=0",
            "run-depth=x",
            "ro=1",
            "umask=9,ro",
            "umask=1000,ro",
            "uid=-1,ro",
            "uid=5",
            "passphrase=secret",
            "exec=/x",
            "ingest,exec=",
            "ingest,alarm-stuck=soon",
            "ingest,alarm-free=91",
            "open",
            "open=1,ro",
            "ingest,open",
        ] {
            let error = of(bad).expect_err(bad);
            assert_eq!(crate::exit::of(&error), Exit::Usage, "{bad}");
        }
    }

    #[test]
    fn help_lists_every_option() {
        use clap::CommandFactory;
        let mut cli = Cli::command();
        let mount = cli.find_subcommand_mut("mount").unwrap();
        let option = mount.get_opts().find(|arg| arg.get_short() == Some('o')).unwrap();
        let help = option.get_help().unwrap().to_string();
        let source = include_str!("mount_options.rs");
        let known = source.split("fn apply(").nth(1).unwrap().split("\n}\n").next().unwrap();
        let names: Vec<_> = known
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("(\"")?.split_once('"'))
            .filter(|(name, rest)| !name.starts_with("alarm-") && !rest.starts_with(" | "))
            .map(|(name, rest)| format!("{name}{}", if rest.starts_with(", Some") { "=" } else { "" }))
            .collect();
        assert!(names.len() >= 20, "{names:?}");
        for name in names {
            assert!(help.split([' ', ',', '\n']).any(|word| word == name), "{name}: {help}");
        }
    }

    #[test]
    fn alarms_are_asked_for_in_fstab_too() {
        use crate::args::MetricsTo;
        let o = of("ingest,exec,exec=/a,metrics=/m.prom,alarm-stuck=2h,alarm-free=5").unwrap();
        assert_eq!(o.kernel, ["exec"], "mount(8)'s own");
        let alarms = o.mount.alarms;
        assert_eq!(alarms.exec.unwrap().to_str(), Some("/a"));
        assert_eq!(alarms.metrics, Some(MetricsTo::File("/m.prom".into())));
        let o = of("ingest,metrics=unix:/m.sock").unwrap();
        assert_eq!(o.mount.alarms.metrics, Some(MetricsTo::Socket("/m.sock".into())));
        assert_eq!((alarms.alarm_stuck, alarms.alarm_free), (Some(Duration::from_secs(7200)), Some(5)));
    }

    #[test]
    fn a_readers_mount_takes_owner_and_mask_from_its_options() {
        assert_eq!(of("ro,uid=5,gid=6,umask=027").unwrap().owner, Some((5, 6, 0o7750)));
        assert_eq!(of("ro").unwrap().owner, None);
        let of_key = |options: &str, reader| {
            let mut options = of(&format!("identity=/k,{options}"))?;
            options.acts_for(reader).map(|()| options)
        };
        let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let reader = of_key("rw,open", true).unwrap();
        assert!(reader.read_only && reader.mount.open);
        assert_eq!(reader.owner, Some((me.0, me.1, 0o7755)), "never the store's");
        assert_eq!(of_key("uid=5,gid=6,umask=0", true).unwrap().owner, Some((5, 6, 0o7777)));
        for bad in ["uid=5", "open"] {
            let error = of_key(bad, false).expect_err("one that writes");
            assert_eq!(crate::exit::of(&error), Exit::Usage, "{bad}");
        }
        assert!(of_key("ro,open,uid=5", false).unwrap().read_only);
    }

    #[test]
    fn mount_8_calls_the_helper() {
        assert!(
            is_helper(OsStr::new("/sbin/mount.runvault")) && is_helper(OsStr::new("mount.fuse.runvault"))
        );
        assert!(!is_helper(OsStr::new("runvault")));
        let call = |args: &[&str]| parse_helper(args.iter().map(OsString::from).collect());
        let full =
            call(&["mount.runvault", "/s", "/m", "-sfn", "-t", "runvault", "-o", "ro,nonsense,noatime"])
                .unwrap();
        let Command::Mount(mount) = full.cli.command else { panic!("a mount") };
        assert!(full.fake);
        assert_eq!(mount.options, ["ro", "noatime"]);
        assert!(call(&["mount.runvault", "/s"]).is_err());
    }
}
