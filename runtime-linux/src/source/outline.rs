//! What a table was read from, in short, so that a change of a few services can be read alone.
//!
//! Of each [piece](super::pieces) of the inputs a digest is kept, and which service its object belongs to: 16 bytes. When a
//! file changes, the pieces with new digests tell which services may be others now; all pieces of these services, wherever
//! they lie, are read and joined as a whole table is. It takes a small part of the time of reading everything, most of it to
//! find the pieces.
//!
//! The result is what the whole table will say of these services, or there is none: wherever something else than a Service
//! or an EndpointSlice changes, many of them do, or anything is at fault. Two things it cannot know. A piece may say something
//! else by what stands in another one (an anchor of YAML), and the whole table may be refused for something in another file.
//! So whoever acts on it reads everything afterwards.

use super::detect::{self, PROGRAM_MAGIC};
use super::diagnostic::{Place, SourceFile};
use super::manifest::join::Here;
use super::pieces::Form;
use super::{NodeBuf, Reading, TableBuf, input, manifest, table_buf};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use twox_hash::XxHash3_64;

/// New pieces, and pieces of the services concerned, up to which they are read alone.
const FEW: usize = 256;

/// The inputs of a table.
#[derive(Debug)]
pub struct Outline {
    files: Vec<File>,
    /// The node that the table is for.
    pub(super) node: NodeBuf,
    /// Its name in slices, and its zone.
    pub(super) here: (Option<String>, Option<String>),
}

/// A file of the inputs.
#[derive(Debug)]
struct File {
    name: String,
    found: bool,
    form: Form,
    pieces: Vec<Piece>,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    digest: u64,
    /// The service that its objects belong to; [`OTHER`] where they are of several, or something else.
    service: u64,
}

/// The number of no service.
const OTHER: u64 = 0;

/// Services of a table that is not read whole yet.
#[derive(Debug)]
pub struct Ahead {
    /// A table of these services alone.
    pub table: TableBuf,
    services: HashSet<u64>,
}

impl Ahead {
    /// Whether this is the name of a port of one of the services. One that the table lacks is no more.
    pub fn concerns(&self, name: &str) -> bool {
        self.services.contains(&service(name))
    }
}

/// What may have changed since an outline was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// These files.
    pub paths: BTreeSet<PathBuf>,
    /// Others too.
    pub unclear: bool,
}

/// A service's number, by the name of one of its ports. Collisions cost no more than another mistake here.
fn service(name: &str) -> u64 {
    let service = name.split(':').next().unwrap_or_default();
    XxHash3_64::oneshot(service.as_bytes()).max(OTHER + 1)
}

/// Where objects stand: the file, by its address, the byte, and the service that the object belongs to.
pub(super) type Marks = Vec<((usize, usize), u64)>;

/// The marks of everything that was read.
pub(super) fn marks(reading: &Reading) -> Marks {
    let mut marks = Marks::new();
    let mut mark = |place: &Place, service: u64| marks.push((place.identity(), service));
    let manifest::Objects { services, slices, nodes, ingresses } = &reading.objects;
    let of = |namespace: &str, name: &str| service(&format!("{namespace}/{name}"));
    for service in services {
        mark(&service.meta.place, of(&service.meta.namespace, &service.meta.name));
    }
    for slice in slices {
        mark(&slice.meta.place, of(&slice.meta.namespace, &slice.service));
    }
    for other in nodes.iter().map(|node| &node.meta).chain(ingresses.iter().map(|ingress| &ingress.meta)) {
        mark(&other.place, OTHER);
    }
    for table in &reading.tables {
        table.node.iter().for_each(|(_, place)| mark(place, OTHER));
        table.services.iter().for_each(|s| mark(s.place(), service(s.name())));
    }
    marks.sort_unstable();
    marks
}

impl Outline {
    /// Of files that gave a table; `marks` of what was read from them.
    pub(super) fn new(files: &[(Arc<SourceFile>, bool)], marks: &Marks) -> Self {
        let files = files.iter().map(|(file, found)| File::new(file, *found, marks)).collect();
        Self { files, node: NodeBuf::default(), here: (None, None) }
    }

    /// What the services that have changed are now, if that can be said of them alone. `paths` are those that the table was
    /// read from.
    pub fn ahead(&self, paths: &[PathBuf], touched: &Touched) -> Option<Ahead> {
        let is_known = |path: &PathBuf| self.files.iter().any(|file| Path::new(&file.name) == path);
        let unclear = touched.unclear || !touched.paths.iter().all(is_known);
        if unclear && !input::names(paths)?.iter().eq(self.files.iter().map(|file| &file.name)) {
            return None;
        }
        let mut texts: Vec<Option<Text>> = Vec::with_capacity(self.files.len());
        let mut services = HashSet::new();
        for file in &self.files {
            let text = if unclear || touched.paths.contains(Path::new(&file.name)) {
                let text = Text::read(file)?;
                services.extend(file.news(&text)?);
                Some(text)
            } else {
                None
            };
            texts.push(text);
        }
        let mut reading = Reading::default();
        let mut room = FEW;
        for (file, text) in self.files.iter().zip(&texts) {
            let reread;
            let text = match text {
                Some(text) => text,
                None if file.pieces.iter().any(|piece| services.contains(&piece.service)) => {
                    reread = Text::read(file)?;
                    if file.news(&reread)?.next().is_some() {
                        return None; // nobody has told of this change yet
                    }
                    &reread
                }
                None => continue,
            };
            let own = file.compare(text)?.services;
            let pieces = text.pieces().zip(own).filter(|(_, own)| own.is_none_or(|own| services.contains(&own)));
            let pieces: Vec<&str> = pieces.map(|(piece, _)| piece).collect();
            room = room.checked_sub(pieces.len())?;
            file.read_alone(&pieces, &mut reading)?;
        }
        self.join(reading, services)
    }

    /// The table of objects that were read alone.
    fn join(&self, mut reading: Reading, services: HashSet<u64>) -> Option<Ahead> {
        let objects = reading.objects.view();
        let here = Here { name: self.here.0.as_deref(), zone: self.here.1.as_deref() };
        let mut drafts = manifest::join::join(&objects, here, &mut reading.sink);
        let tables = std::mem::take(&mut reading.tables);
        let own = tables.into_iter().flat_map(|table| table.services);
        drafts.extend(own.map(|service| service.resolve(&self.node.name)));
        let table = table_buf::assemble(drafts, self.node.clone(), &mut reading.sink);
        reading.sink.problems.is_empty().then_some(Ahead { table, services })
    }
}

/// A file's text as it is now, and where its pieces end.
struct Text {
    content: String,
    ends: Vec<usize>,
    digests: Vec<u64>,
}

impl Text {
    fn read(file: &File) -> Option<Self> {
        let bytes = input::read(Path::new(&file.name)).ok().filter(|bytes| !bytes.starts_with(PROGRAM_MAGIC))?;
        let text = String::from_utf8(bytes).ok().filter(|text| !text.starts_with('\u{feff}'))?;
        let pieces = file.form.split(&text);
        let digests = pieces.iter().map(|piece| XxHash3_64::oneshot(piece.as_bytes())).collect();
        let ends = pieces.iter().scan(0, |end, piece| {
            *end += piece.len();
            Some(*end)
        });
        Some(Self { ends: ends.collect(), digests, content: text })
    }

    fn pieces(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| self.content.get(start..*end).unwrap_or_default())
    }
}

/// A text beside its outline.
struct Comparison {
    /// The service of each piece; `None` for a new one.
    services: Vec<Option<u64>>,
    /// Services of pieces that are not there any more.
    gone: Vec<u64>,
}

impl File {
    fn new(file: &Arc<SourceFile>, found: bool, marks: &Marks) -> Self {
        let text = file.text();
        let form = Form::of(text, detect::kind(text));
        let identity = Place::new(file, 0..0).identity().0;
        let mut marks = marks.get(marks.partition_point(|mark| mark.0.0 < identity)..).unwrap_or_default().iter();
        let mut ahead = marks.next();
        let mut end = 0;
        let pieces = form.split(text).into_iter().map(|piece| {
            end += piece.len();
            let mut service = None;
            while let Some(((_, _), own)) = ahead.filter(|mark| mark.0.0 == identity && mark.0.1 < end) {
                service = Some(if service.is_none_or(|service| service == *own) { *own } else { OTHER });
                ahead = marks.next();
            }
            Piece { digest: XxHash3_64::oneshot(piece.as_bytes()), service: service.unwrap_or(OTHER) }
        });
        let pieces = pieces.collect();
        Self { name: file.name().to_owned(), found, form, pieces }
    }

    /// Services that a text's new pieces and those that are gone are of.
    fn news(&self, text: &Text) -> Option<impl Iterator<Item = u64>> {
        let Comparison { services, gone } = self.compare(text)?;
        let new = text.pieces().zip(services).filter(|(_, service)| service.is_none());
        let new: Vec<&str> = new.map(|(piece, _)| piece).collect();
        let mut reading = Reading::default();
        if !new.is_empty() {
            self.read_alone(&new, &mut reading)?;
        }
        Some(gone.into_iter().chain(marks(&reading).into_iter().map(|(_, service)| service)))
    }

    /// Most texts differ from their outlines in a few neighbours: what both begin and end with is passed over first.
    fn compare(&self, text: &Text) -> Option<Comparison> {
        let (old, new) = (&self.pieces[..], &text.digests[..]);
        let same = |(old, new): &(&Piece, &u64)| old.digest == **new;
        let front = old.iter().zip(new).take_while(same).count();
        let back = old[front..].iter().rev().zip(new[front..].iter().rev()).take_while(same).count();
        let (old_end, new_end) = (old.len() - back, new.len() - back);
        let mut left: HashMap<u64, Vec<u64>> = HashMap::new();
        for piece in &old[front..old_end] {
            left.entry(piece.digest).or_default().push(piece.service);
        }
        let middle = new[front..new_end].iter().map(|digest| left.get_mut(digest).and_then(Vec::pop));
        let mut services: Vec<Option<u64>> = old[..front].iter().map(|piece| Some(piece.service)).collect();
        services.extend(middle);
        services.extend(old[old_end..].iter().map(|piece| Some(piece.service)));
        let gone: Vec<u64> = left.into_values().flatten().collect();
        let few = gone.len() <= FEW && services.iter().filter(|service| service.is_none()).count() <= FEW;
        (few && !gone.contains(&OTHER)).then_some(Comparison { services, gone })
    }

    /// Reads pieces; `None` if anything about them is at fault, or they are no Services and slices.
    fn read_alone(&self, pieces: &[&str], reading: &mut Reading) -> Option<()> {
        if pieces.is_empty() {
            return Some(());
        }
        let text = self.form.join(pieces.iter().copied());
        reading.read(&Arc::new(SourceFile::new(self.name.as_str(), text)), self.found);
        let Reading { sink, report, objects, tables, listings } = &*reading;
        let services_only = objects.nodes.is_empty()
            && objects.ingresses.is_empty()
            && listings.is_empty()
            && report.skipped.is_empty()
            && tables.iter().all(|table| table.node.is_none());
        (services_only && sink.problems.is_empty() && sink.warnings.is_empty()).then_some(())
    }
}

#[cfg(test)]
mod tests;
