//! What becomes of an unsynced change, decided at random or by going through all answers.

/// Decides.
pub trait Chooser {
    /// A number below `weights.len()`; the weights say how often at random. 0 is always the answer
    /// that loses nothing.
    fn choose(&mut self, weights: &[u32]) -> usize;
    /// The same for a yes or no that is asked for every piece of a write.
    fn coin(&mut self) -> bool {
        self.choose(&[1, 1]) == 0
    }
}

/// What becomes of a write.
pub(super) enum Fate {
    Full,
    Lost,
    TornSectors,
    TornPages,
    LengthOnly,
}

/// How many fates a write may have.
const WRITE_FATES: usize = 5;

pub(super) fn of_write(chooser: &mut dyn Chooser) -> Fate {
    let weights: [u32; WRITE_FATES] = [55, 25, 7, 3, 10];
    match chooser.choose(&weights) {
        0 => Fate::Full,
        1 => Fate::Lost,
        2 => Fate::TornSectors,
        3 => Fate::TornPages,
        _ => Fate::LengthOnly,
    }
}

pub(super) fn arrives(chooser: &mut dyn Chooser) -> bool {
    chooser.choose(&[60, 40]) == 0
}

/// Nothing is lost.
pub(super) struct Full;

impl Chooser for Full {
    fn choose(&mut self, _weights: &[u32]) -> usize {
        0
    }
}

/// Random, the same for the same seed. One disk in four lost nothing, one in ten everything.
pub struct Draw {
    state: u64,
    mood: Mood,
}

#[derive(PartialEq, Eq)]
enum Mood {
    Lucky,
    Unlucky,
    Mixed,
}

impl Draw {
    /// The draw of this number.
    pub fn new(seed: u64) -> Self {
        let mut draw = Self { state: seed ^ 0x9e37_79b9_7f4a_7c15, mood: Mood::Mixed };
        draw.mood = match draw.below(100) {
            0..25 => Mood::Lucky,
            25..35 => Mood::Unlucky,
            _ => Mood::Mixed,
        };
        draw
    }

    /// A number below `n` (splitmix64).
    pub fn below(&mut self, n: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n.max(1)
    }
}

impl Chooser for Draw {
    fn choose(&mut self, weights: &[u32]) -> usize {
        match self.mood {
            Mood::Lucky => return 0,
            Mood::Unlucky => return 1.min(weights.len() - 1),
            Mood::Mixed => {}
        }
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        let mut at = self.below(total);
        for (i, weight) in weights.iter().enumerate() {
            let weight = u64::from(*weight);
            if at < weight {
                return i;
            }
            at -= weight;
        }
        0
    }
}

/// All answers, one after the other: use it for one disk, then [`Every::next`], until that is false.
#[derive(Default)]
pub struct Every {
    /// Answer and number of answers of each question, in the order asked.
    path: Vec<(usize, usize)>,
    at: usize,
}

impl Every {
    /// Turns to the next disk; false when all have been.
    #[expect(clippy::should_implement_trait, reason = "it yields nothing")]
    pub fn next(&mut self) -> bool {
        self.path.truncate(self.at);
        self.at = 0;
        while let Some((answer, answers)) = self.path.last_mut() {
            *answer += 1;
            if *answer < *answers {
                return true;
            }
            self.path.pop();
        }
        false
    }
}

impl Chooser for Every {
    fn choose(&mut self, weights: &[u32]) -> usize {
        if self.at == self.path.len() {
            self.path.push((0, weights.len()));
        }
        self.at += 1;
        self.path.get(self.at - 1).map_or(0, |(answer, _)| *answer)
    }
}

/// Every change arrives, but of each write only every second sector or page.
pub struct Stripes {
    pages: bool,
    next: bool,
}

impl Stripes {
    /// Stripes of 4 KiB or of 512 bytes; `first` says whether the first one arrives.
    pub fn new(pages: bool, first: bool) -> Self {
        Self { pages, next: first }
    }
}

impl Chooser for Stripes {
    fn choose(&mut self, weights: &[u32]) -> usize {
        match (weights.len(), self.pages) {
            (WRITE_FATES, false) => 2,
            (WRITE_FATES, true) => 3,
            _ => 0,
        }
    }

    fn coin(&mut self) -> bool {
        self.next = !self.next;
        !self.next
    }
}
