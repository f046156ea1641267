//! RunInfo.xml: which instrument, which flow cell, which reads, how its tiles are numbered.

use std::fmt::Write as _;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use crate::spec::Read;
use crate::{Error, Result};

/// RunInfo.xml of a run.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RunInfo {
    /// The run folder's name.
    pub id: String,
    /// Number of the run on its instrument.
    pub number: u32,
    /// Flow cell's barcode.
    pub flowcell: String,
    /// Instrument's serial number.
    pub instrument: String,
    /// Date, as the instrument writes it.
    pub date: String,
    /// The reads, in order.
    pub reads: Vec<Read>,
    /// The flow cell.
    pub layout: Layout,
}

/// How a flow cell is divided.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Layout {
    /// Lanes.
    pub lanes: u32,
    /// Surfaces of a lane.
    pub surfaces: u32,
    /// Swaths of a surface.
    pub swaths: u32,
    /// Tiles of a swath, or of a camera's section of it.
    pub tiles: u32,
    /// Cameras that see a lane.
    pub sections_per_lane: Option<u32>,
    /// How tiles are numbered, where it is said.
    pub naming: Option<TileNaming>,
    /// Lane and tile of each, where they are listed.
    pub tile_list: Vec<(u32, u32)>,
}

/// How many digits a tile's number has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TileNaming {
    /// Surface, swath, two digits of the tile.
    FourDigit,
    /// Surface, swath, camera, two digits of the tile.
    FiveDigit,
}

/// No real file comes near: a NovaSeq X lists 6,272 tiles in under 200 KiB.
const MAX_BYTES: usize = 4 << 20;

impl RunInfo {
    /// Reads one.
    ///
    /// # Errors
    /// [`Error::RunInfo`] for anything that is not well-formed or lacks the run, its reads or its layout.
    pub fn parse(xml: &str) -> Result<Self> {
        if xml.len() > MAX_BYTES {
            return Err(Error::RunInfo("is too long".into()));
        }
        let mut reader = Reader::from_str(xml.trim_start_matches('\u{feff}'));
        reader.config_mut().trim_text(true);
        let mut found = Found::default();
        loop {
            match reader.read_event().map_err(|e| Error::RunInfo(e.to_string()))? {
                Event::Start(tag) => {
                    found.element(&tag)?;
                    found.inside = name_of(&tag);
                }
                Event::Empty(tag) => found.element(&tag)?,
                Event::Text(text) => found.text(&text.xml_content(quick_xml::XmlVersion::Implicit1_0))?,
                Event::GeneralRef(reference) => found.text(resolve(&reference)?)?,
                Event::End(_) => found.inside.clear(),
                Event::Eof => return found.finish(),
                _ => {}
            }
        }
    }

    /// Writes it as an instrument would.
    #[must_use]
    pub fn to_xml(&self) -> String {
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<RunInfo Version=\"4\">\n");
        let text = |raw: &str| quick_xml::escape::escape(raw).into_owned();
        // Writing into a String cannot fail.
        let _ = writeln!(xml, "  <Run Id=\"{}\" Number=\"{}\">", text(&self.id), self.number);
        let _ = writeln!(xml, "    <Flowcell>{}</Flowcell>", text(&self.flowcell));
        let _ = writeln!(xml, "    <Instrument>{}</Instrument>", text(&self.instrument));
        let _ = writeln!(xml, "    <Date>{}</Date>", text(&self.date));
        self.write_reads(&mut xml);
        self.layout.write(&mut xml);
        xml.push_str("  </Run>\n</RunInfo>\n");
        xml
    }

    fn write_reads(&self, xml: &mut String) {
        xml.push_str("    <Reads>\n");
        for (number, read) in (1..).zip(&self.reads) {
            let indexed = if read.indexed { 'Y' } else { 'N' };
            let _ = writeln!(
                xml,
                "      <Read Number=\"{number}\" NumCycles=\"{}\" IsIndexedRead=\"{indexed}\" />",
                read.cycles
            );
        }
        xml.push_str("    </Reads>\n");
    }
}

impl Layout {
    fn write(&self, xml: &mut String) {
        let _ = write!(
            xml,
            "    <FlowcellLayout LaneCount=\"{}\" SurfaceCount=\"{}\" SwathCount=\"{}\" TileCount=\"{}\"",
            self.lanes, self.surfaces, self.swaths, self.tiles
        );
        if let Some(sections) = self.sections_per_lane {
            let _ = write!(xml, " SectionPerLane=\"{sections}\"");
        }
        let Some(naming) = self.naming else {
            xml.push_str(" />\n");
            return;
        };
        let naming = if naming == TileNaming::FiveDigit { "FiveDigit" } else { "FourDigit" };
        let _ = writeln!(xml, ">\n      <TileSet TileNamingConvention=\"{naming}\">\n        <Tiles>");
        for (lane, tile) in &self.tile_list {
            let _ = writeln!(xml, "          <Tile>{lane}_{tile}</Tile>");
        }
        xml.push_str("        </Tiles>\n      </TileSet>\n    </FlowcellLayout>\n");
    }
}

/// What has been read so far.
#[derive(Default)]
struct Found {
    info: RunInfo,
    /// Name of the element whose text comes next.
    inside: String,
    reads: Vec<(u32, Read)>,
}

impl Found {
    fn element(&mut self, tag: &BytesStart<'_>) -> Result<()> {
        let layout = &mut self.info.layout;
        match name_of(tag).as_str() {
            "Run" => {
                self.info.id = text_of(tag, "Id")?.ok_or_else(|| missing("Run", "Id"))?;
                self.info.number = number_of(tag, "Number")?.unwrap_or_default();
            }
            "Read" => {
                let number = number_of(tag, "Number")?.ok_or_else(|| missing("Read", "Number"))?;
                let cycles = number_of(tag, "NumCycles")?.ok_or_else(|| missing("Read", "NumCycles"))?;
                let indexed = text_of(tag, "IsIndexedRead")?.is_some_and(|flag| flag == "Y");
                self.reads.push((number, Read { cycles, indexed }));
            }
            "FlowcellLayout" => {
                let need = |name| number_of(tag, name)?.ok_or_else(|| missing("FlowcellLayout", name));
                layout.lanes = need("LaneCount")?;
                layout.surfaces = need("SurfaceCount")?;
                layout.swaths = need("SwathCount")?;
                layout.tiles = need("TileCount")?;
                layout.sections_per_lane = number_of(tag, "SectionPerLane")?;
            }
            "TileSet" => {
                layout.naming = text_of(tag, "TileNamingConvention")?.and_then(|name| match name.as_str() {
                    "FourDigit" => Some(TileNaming::FourDigit),
                    "FiveDigit" => Some(TileNaming::FiveDigit),
                    _ => None,
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<()> {
        match self.inside.as_str() {
            "Flowcell" => self.info.flowcell.push_str(text),
            "Instrument" => self.info.instrument.push_str(text),
            "Date" => self.info.date.push_str(text),
            "Tile" => {
                let parts = text
                    .split_once('_')
                    .and_then(|(lane, tile)| Some((lane.parse().ok()?, tile.parse().ok()?)));
                let tile = parts
                    .ok_or_else(|| Error::RunInfo(format!("<Tile>{text}</Tile> is no lane and tile")))?;
                self.info.layout.tile_list.push(tile);
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(mut self) -> Result<RunInfo> {
        if self.info.id.is_empty() {
            return Err(Error::RunInfo("has no <Run>".into()));
        }
        if self.info.layout.lanes == 0 {
            return Err(Error::RunInfo("has no <FlowcellLayout>".into()));
        }
        if self.reads.is_empty() {
            return Err(Error::RunInfo("has no <Read>".into()));
        }
        self.reads.sort_by_key(|(number, _)| *number);
        self.info.reads = self.reads.into_iter().map(|(_, read)| read).collect();
        Ok(self.info)
    }
}

fn name_of(tag: &BytesStart<'_>) -> String {
    tag.local_name().as_ref().to_owned()
}

/// No entity beside the five that XML itself knows: a file that declares its own is none of an instrument's.
fn resolve(reference: &str) -> Result<&'static str> {
    quick_xml::escape::resolve_xml_entity(reference)
        .ok_or_else(|| Error::RunInfo(format!("&{reference}; is unknown")))
}

fn text_of(tag: &BytesStart<'_>, name: &str) -> Result<Option<String>> {
    let attribute = tag.try_get_attribute(name).map_err(|e| Error::RunInfo(e.to_string()))?;
    let Some(attribute) = attribute else { return Ok(None) };
    let text = attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0);
    Ok(Some(text.map_err(|e| Error::RunInfo(e.to_string()))?.into_owned()))
}

fn number_of(tag: &BytesStart<'_>, name: &str) -> Result<Option<u32>> {
    let Some(text) = text_of(tag, name)? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| Error::RunInfo(format!("{name}=\"{text}\" is no number")))
}

fn missing(element: &str, attribute: &str) -> Error {
    Error::RunInfo(format!("<{element}> has no {attribute}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::family::FAMILIES;
    use crate::spec::{RunSpec, Size};

    #[test]
    fn a_real_miseq_file() {
        let info = RunInfo::parse(
            "<?xml version=\"1.0\"?>\n<RunInfo xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" Version=\"2\">
            <Run Id=\"130417_M00146_0021_000000000-A2WDF\" Number=\"20\"><Flowcell>000000000-A2WDF</Flowcell>
            <Instrument>M00146</Instrument><Date>130417</Date><Reads>
            <Read NumCycles=\"121\" Number=\"2\" IsIndexedRead=\"N\" />
            <Read NumCycles=\"8\" Number=\"1\" IsIndexedRead=\"Y\" /></Reads>
            <FlowcellLayout LaneCount=\"1\" SurfaceCount=\"2\" SwathCount=\"1\" TileCount=\"14\" /></Run></RunInfo>",
        )
        .unwrap();
        assert_eq!((info.number, info.instrument.as_str()), (20, "M00146"));
        assert_eq!(info.reads, [Read { cycles: 8, indexed: true }, Read { cycles: 121, indexed: false }]);
        assert_eq!((info.layout.tiles, info.layout.naming), (14, None));
    }

    #[test]
    fn what_is_written_reads_back() {
        for family in FAMILIES {
            let spec = RunSpec::preset(family, Size::Tiny);
            let info = spec.run_info();
            assert_eq!(RunInfo::parse(&info.to_xml()).unwrap(), info);
            assert_eq!(RunSpec::of_run_info(family, &info, spec.clusters_per_tile).unwrap(), spec);
        }
    }

    #[test]
    fn what_is_no_run_info_is_refused() {
        let layout = "<FlowcellLayout LaneCount=\"1\" SurfaceCount=\"1\" SwathCount=\"1\" TileCount=\"1\"/>";
        for (xml, why) in [
            ("", "has no <Run>"),
            ("<RunInfo><Run Number=\"1\"/></RunInfo>", "<Run> has no Id"),
            ("<RunInfo><Run Id=\"x\"/></RunInfo>", "has no <FlowcellLayout>"),
            (&format!("<RunInfo><Run Id=\"x\"/>{layout}</RunInfo>"), "has no <Read>"),
            ("<RunInfo><Run Id=\"x\" Number=\"-1\"/></RunInfo>", "Number=\"-1\" is no number"),
            ("<RunInfo><Tile>1</Tile></RunInfo>", "<Tile>1</Tile> is no lane and tile"),
        ] {
            let said = RunInfo::parse(xml).unwrap_err().to_string();
            assert!(said.ends_with(why), "{xml}: {said}");
        }
        assert!(RunInfo::parse("<RunInfo><Run Id=\"x\"></RunInfo>").is_err());
        assert!(RunInfo::parse(&" ".repeat(MAX_BYTES + 1)).is_err());
    }

    proptest! {
        #[test]
        fn hostile_text_does_not_panic(xml in "[<>/=\"' &;A-Za-z]{0,200}") {
            let _ = RunInfo::parse(&xml);
        }

        #[test]
        fn names_survive_escaping(id in "[ -~]{1,40}") {
            let mut info = RunSpec::preset(Family::HiSeq, Size::Tiny).run_info();
            info.id = id;
            prop_assert_eq!(RunInfo::parse(&info.to_xml()).unwrap(), info);
        }
    }

    use crate::family::Family;
}
