//! Files whose appearance says how far a run is.

/// What a marker file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Marker {
    /// `RTARead<n>Complete.txt`: one read is called.
    ReadComplete(u32),
    /// `ImageAnalysis_Netcopy_complete.txt`: images of the whole run are analysed.
    ImageAnalysis,
    /// `Basecalling_Netcopy_complete.txt`: the whole run is called.
    BaseCalling,
    /// `ImageAnalysis_Netcopy_complete_Read<n>.txt` or `Basecalling_Netcopy_complete_Read<n>.txt`.
    NetcopyRead(u32),
    /// `RTAComplete.txt`: base calling has ended. Files are still sent after it.
    RtaComplete,
    /// `SequenceComplete.txt` (NovaSeq 6000).
    SequenceComplete,
    /// `SequencingComplete.txt` (HiSeq X).
    SequencingComplete,
    /// `CopyComplete.txt`: the transfer has ended.
    CopyComplete,
    /// `RunCompletionStatus.xml`: the control software's verdict.
    RunCompletionStatus,
    /// `CompletedJobInfo.xml` (MiSeq): the instrument's own analysis has ended.
    CompletedJobInfo,
}

impl Marker {
    /// The marker that a file in a run folder's root is. Case does not matter: readers found both.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let whole = match name.as_str() {
            "rtacomplete.txt" | "rtacomplete.xml" => Some(Self::RtaComplete),
            "copycomplete.txt" => Some(Self::CopyComplete),
            "sequencecomplete.txt" => Some(Self::SequenceComplete),
            "sequencingcomplete.txt" => Some(Self::SequencingComplete),
            "runcompletionstatus.xml" => Some(Self::RunCompletionStatus),
            "completedjobinfo.xml" => Some(Self::CompletedJobInfo),
            "imageanalysis_netcopy_complete.txt" => Some(Self::ImageAnalysis),
            "basecalling_netcopy_complete.txt" => Some(Self::BaseCalling),
            _ => None,
        };
        whole.or_else(|| of_read(&name))
    }

    /// The file's name.
    #[must_use]
    pub fn file_name(self) -> String {
        match self {
            Self::ReadComplete(read) => format!("RTARead{read}Complete.txt"),
            Self::NetcopyRead(read) => format!("Basecalling_Netcopy_complete_Read{read}.txt"),
            Self::ImageAnalysis => "ImageAnalysis_Netcopy_complete.txt".into(),
            Self::BaseCalling => "Basecalling_Netcopy_complete.txt".into(),
            Self::RtaComplete => "RTAComplete.txt".into(),
            Self::SequenceComplete => "SequenceComplete.txt".into(),
            Self::SequencingComplete => "SequencingComplete.txt".into(),
            Self::CopyComplete => "CopyComplete.txt".into(),
            Self::RunCompletionStatus => "RunCompletionStatus.xml".into(),
            Self::CompletedJobInfo => "CompletedJobInfo.xml".into(),
        }
    }
}

fn of_read(name: &str) -> Option<Marker> {
    let between = |start, end| name.strip_prefix(start)?.strip_suffix(end)?.parse::<u32>().ok();
    let netcopy = || {
        between("imageanalysis_netcopy_complete_read", ".txt")
            .or_else(|| between("basecalling_netcopy_complete_read", ".txt"))
    };
    between("rtaread", "complete.txt")
        .map(Marker::ReadComplete)
        .or_else(|| netcopy().map(Marker::NetcopyRead))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::FAMILIES;

    #[test]
    fn names_round_trip_and_case_does_not_matter() {
        let mut markers = vec![Marker::ReadComplete(3), Marker::NetcopyRead(1)];
        markers.extend(FAMILIES.iter().flat_map(|family| family.profile().markers));
        for marker in markers {
            assert_eq!(Marker::of_name(&marker.file_name()), Some(marker));
            assert_eq!(Marker::of_name(&marker.file_name().to_uppercase()), Some(marker));
        }
        assert_eq!(Marker::of_name("ImageAnalysis_Netcopy_complete_Read2.txt"), Some(Marker::NetcopyRead(2)));
    }

    #[test]
    fn other_files_are_no_markers() {
        for name in ["", "RunInfo.xml", "RTAReadComplete.txt", "RTARead1Complete.txt.tmp", "xRTAComplete.txt"]
        {
            assert_eq!(Marker::of_name(name), None, "{name}");
        }
    }
}
