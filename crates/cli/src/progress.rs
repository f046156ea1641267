//! Progress bars: on standard error, and only where that is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar that counts bytes.
pub fn bytes(total: u64, what: &str) -> ProgressBar {
    bar(total, what, "{prefix} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} {wide_msg}")
}

/// A bar that counts things.
pub fn items(total: u64, what: &str) -> ProgressBar {
    bar(total, what, "{prefix} [{bar:30}] {pos}/{len} {eta} {wide_msg}")
}

/// A bar of runs, while `work` tells how many are done, and of how many.
pub fn of_runs<T>(work: impl FnOnce(&mut dyn FnMut(u64, u64)) -> T) -> T {
    let bar = items(0, "runs");
    let done = work(&mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    done
}

fn bar(total: u64, what: &str, template: &str) -> ProgressBar {
    // `stderr()` hides itself where standard error is no terminal.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    // Nothing is drawn before something was done: a total that is not known yet would look like the end.
    ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr())
        .with_style(style.progress_chars("=> "))
        .with_prefix(what.to_owned())
}
