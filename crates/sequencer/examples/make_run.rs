//! Writes a generated run folder: `make_run FAMILY DIR [--size tiny|demo|full] [--scale X] [--mode MODE] [--seed N]
//! [--speed X] [--hands N] [--fastq DIR]`. Modes: sequential, preallocate, rename-over, append, rewrite, resume,
//! two-writers, tailed. With `--fastq`, the expected FASTQ of each lane as `lane<n>.*`.

use std::error::Error;
use std::path::{Path, PathBuf};

use runvault_sequencer::family::FAMILIES;
use runvault_sequencer::synthetic::fastq;
use runvault_sequencer::{Family, Mode, Replay, RunSpec, Size};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(family), Some(dir)) = (arguments.next(), arguments.next()) else {
        let names: Vec<&str> = FAMILIES.iter().map(|family| family.profile().name).collect();
        return Err(format!("usage: make_run FAMILY DIR [options]; families: {}", names.join(", ")).into());
    };
    let family = Family::named(&family).ok_or_else(|| format!("{family}: no such family"))?;
    let mut spec = RunSpec::preset(family, Size::Tiny);
    let (mut scale, mut expected) = (None, None);
    let mut options = Vec::new();
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{option} needs a value"))?;
        match option.as_str() {
            "--size" => spec = RunSpec::preset(family, size(&value)?).seeded(spec.seed),
            "--scale" => scale = Some(value.parse()?),
            "--seed" => spec.seed = value.parse()?,
            "--fastq" => expected = Some(PathBuf::from(value)),
            _ => options.push((option, value)),
        }
    }
    if let Some(scale) = scale {
        spec = spec.scaled(scale);
    }
    let mut replay = Replay::new(spec.clone());
    for (option, value) in options {
        replay = match option.as_str() {
            "--mode" => replay.mode(mode(&value)?),
            "--speed" => replay.speed(value.parse()?),
            "--hands" => replay.hands(value.parse()?),
            _ => return Err(format!("{option}: no such option").into()),
        };
    }
    let written = replay.run(Path::new(&dir), &mut |_| {})?;
    println!("{}: {} files, {} bytes", written.folder.display(), written.files, written.bytes);
    println!("writing took {:.3} s", written.writing.as_secs_f64());
    println!("READ_STRUCTURE={} RUN_BARCODE={}", fastq::read_structure(&spec), fastq::run_barcode(&spec));
    if let Some(expected) = expected {
        for lane in 1..=spec.lanes {
            fastq::write_expected(&spec, lane, &expected, &format!("lane{lane}"))?;
        }
    }
    Ok(())
}

fn size(name: &str) -> Result<Size, String> {
    match name {
        "tiny" => Ok(Size::Tiny),
        "demo" => Ok(Size::Demo),
        "full" => Ok(Size::Full),
        _ => Err(format!("{name}: no such size")),
    }
}

fn mode(name: &str) -> Result<Mode, String> {
    Mode::named(name).ok_or_else(|| format!("{name}: no such mode"))
}
