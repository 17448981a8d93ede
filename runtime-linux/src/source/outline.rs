//! What a table was read from, in short, so that a change of a few services can be read alone.
//!
//! Of each [piece](super::pieces) of the inputs a digest is kept, and which service its object belongs to: 16 bytes. When a
//! file changes, the pieces with new digests tell which services may be others now. All pieces of these services, wherever
//! they lie, are read and joined as a whole table is, and take the place of what the table before had of them. That takes a
//! small part of the time of reading everything, most of it to find the pieces.
//!
//! The result is the table that reading everything gives, or there is none: wherever something else than a Service or an
//! EndpointSlice changes, many of them do, a piece is of several services, or anything is at fault or worth a remark, whoever
//! asked has to read everything. Whether two services claim one address is for the compiler to say.

use super::detect::{self, PROGRAM_MAGIC};
use super::diagnostic::{Place, SourceFile};
use super::manifest::join::Here;
use super::pieces::Form;
use super::{NodeBuf, Reading, ServiceBuf, TableBuf, input, manifest, table_buf};
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
    /// Services may have hosts from them, which these services' own pieces do not say.
    has_ingresses: bool,
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

/// A table in which a few services are others than before.
#[derive(Debug)]
pub struct Changed {
    /// All of it.
    pub table: TableBuf,
    /// The pieces of the files that were read, by the files' positions.
    pieces: Vec<(usize, Vec<Piece>)>,
}

/// What may have changed since an outline was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// These files.
    pub paths: BTreeSet<PathBuf>,
    /// Others too.
    pub unclear: bool,
}

/// A service's number, by the name of one of its ports. Services of one number are read together, as if they were one.
fn service(name: &str) -> u64 {
    let service = name.split(':').next().unwrap_or_default();
    XxHash3_64::oneshot(service.as_bytes()).max(OTHER + 1)
}

/// Where objects stand: the file, by its address, the byte, and the service that the object belongs to.
type Marks = Vec<((usize, usize), u64)>;

/// The marks of everything that was read.
fn marks(reading: &Reading) -> Marks {
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
    /// Of files that were read; `None` if they have pieces of several services.
    pub(super) fn new(files: &[(Arc<SourceFile>, bool)], reading: &Reading) -> Option<Self> {
        let marks = marks(reading);
        let files = files.iter().map(|(file, found)| File::new(file, *found, &marks)).collect::<Option<_>>()?;
        let has_ingresses = !reading.objects.ingresses.is_empty();
        Some(Self { files, node: NodeBuf::default(), here: (None, None), has_ingresses })
    }

    /// What has become of the table that was read, if that can be said by reading a few services. `paths` are those that it was
    /// read from.
    pub fn changed(&self, before: &TableBuf, paths: &[PathBuf], touched: &Touched) -> Option<Changed> {
        let is_known = |path: &PathBuf| self.files.iter().any(|file| Path::new(&file.name) == path);
        let unclear = touched.unclear || !touched.paths.iter().all(is_known);
        if unclear && !input::names(paths)?.iter().eq(self.files.iter().map(|file| &file.name)) {
            return None;
        }
        let mut news: Vec<Option<News>> = Vec::with_capacity(self.files.len());
        for file in &self.files {
            let is_touched = unclear || touched.paths.contains(Path::new(&file.name));
            news.push(if is_touched { Some(file.news(Text::read(file)?)?) } else { None });
        }
        let services: HashSet<u64> = news.iter().flatten().flat_map(|news| news.services.iter().copied()).collect();
        let mut reading = Reading::default();
        let mut room = FEW;
        for (file, news) in self.files.iter().zip(&news) {
            let reread;
            let News { text, pieces, .. } = match news {
                Some(news) => news,
                None if file.pieces.iter().any(|piece| services.contains(&piece.service)) => {
                    reread = file.news(Text::read(file)?)?;
                    if !reread.services.is_empty() {
                        return None; // nobody has told of this change yet
                    }
                    &reread
                }
                None => continue,
            };
            let concerned = text.pieces().zip(pieces).filter(|(_, piece)| services.contains(&piece.service));
            let concerned: Vec<&str> = concerned.map(|(text, _)| text).collect();
            room = room.checked_sub(concerned.len())?;
            file.read_alone(&concerned, &mut reading)?;
        }
        let new = self.join(reading)?;
        let is_concerned = |name: &str| services.contains(&service(name));
        if self.has_ingresses && !alike(&before.ports_of(is_concerned), &new.services()) {
            return None;
        }
        let pieces = news.into_iter().enumerate().filter_map(|(at, news)| Some((at, news?.pieces))).collect();
        Some(Changed { table: before.with(is_concerned, &new), pieces })
    }

    /// Takes note of a change; returns its table.
    pub fn follow(&mut self, changed: Changed) -> TableBuf {
        for (at, pieces) in changed.pieces {
            self.files[at].pieces = pieces;
        }
        changed.table
    }

    /// The table of objects that were read alone.
    fn join(&self, mut reading: Reading) -> Option<TableBuf> {
        let objects = reading.objects.view();
        let here = Here { name: self.here.0.as_deref(), zone: self.here.1.as_deref() };
        let mut drafts = manifest::join::join(&objects, here, &mut reading.sink);
        let tables = std::mem::take(&mut reading.tables);
        let own = tables.into_iter().flat_map(|table| table.services);
        drafts.extend(own.map(|service| service.resolve(&self.node.name)));
        let table = table_buf::assemble(drafts, self.node.clone(), &mut reading.sink);
        (reading.sink.problems.is_empty() && reading.sink.warnings.is_empty()).then_some(table)
    }
}

/// Whether no Ingress has or gets anything to say of service ports: none has hosts, and all have the names and frontends that
/// they had.
fn alike(before: &[ServiceBuf], after: &[ServiceBuf]) -> bool {
    before.len() == after.len()
        && before.iter().zip(after).all(|(old, new)| {
            (&old.name, old.protocol, &old.frontends) == (&new.name, new.protocol, &new.frontends)
                && old.hosts.is_empty()
                && new.hosts.is_empty()
        })
}

/// A file's text as it is now, and where its pieces end.
struct Text {
    content: String,
    ends: Vec<usize>,
    digests: Vec<u64>,
}

impl Text {
    fn read(file: &File) -> Option<Self> {
        // a pipe in a file's place would keep the reader waiting
        std::fs::metadata(&file.name).ok().filter(std::fs::Metadata::is_file)?;
        // an empty file is refused: what truncated it may not be done yet
        let is_text = |bytes: &Vec<u8>| !bytes.is_empty() && !bytes.starts_with(PROGRAM_MAGIC);
        let bytes = input::read(Path::new(&file.name)).ok().filter(is_text)?;
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

/// A file's text beside the one before.
struct News {
    text: Text,
    /// Its pieces.
    pieces: Vec<Piece>,
    /// Services that the new ones and those that are gone are of.
    services: HashSet<u64>,
}

impl File {
    /// `None` if a piece is of several services.
    fn new(file: &Arc<SourceFile>, found: bool, marks: &Marks) -> Option<Self> {
        let text = file.text();
        let form = Form::of(text, detect::kind(text));
        let identity = Place::new(file, 0..0).identity().0;
        let own = marks.get(marks.partition_point(|mark| mark.0.0 < identity)..).unwrap_or_default();
        let mut own = own.iter().take_while(|mark| mark.0.0 == identity).peekable();
        let mut end = 0;
        let pieces = form.split(text).into_iter().map(|piece| {
            end += piece.len();
            let of_piece = std::iter::from_fn(|| own.next_if(|mark| mark.0.1 < end)).map(|mark| mark.1);
            Some(Piece { digest: XxHash3_64::oneshot(piece.as_bytes()), service: the_only(of_piece)? })
        });
        let pieces = pieces.collect::<Option<_>>()?;
        Some(Self { name: file.name().to_owned(), found, form, pieces })
    }

    /// Most texts differ from the one before in a few neighbours: what both begin and end with is passed over first.
    fn news(&self, text: Text) -> Option<News> {
        let (old, new) = (&self.pieces[..], &text.digests[..]);
        let same = |(old, new): &(&Piece, &u64)| old.digest == **new;
        let front = old.iter().zip(new).take_while(same).count();
        let back = old[front..].iter().rev().zip(new[front..].iter().rev()).take_while(same).count();
        let mut left: HashMap<u64, Vec<Piece>> = HashMap::new();
        for piece in &old[front..old.len() - back] {
            left.entry(piece.digest).or_default().push(*piece);
        }
        let mut services = HashSet::new();
        let mut pieces = old[..front].to_vec();
        let mut room = FEW;
        let middle = new[front..new.len() - back].iter().zip(text.pieces().skip(front));
        for (digest, piece) in middle {
            if let Some(known) = left.get_mut(digest).and_then(Vec::pop) {
                pieces.push(known);
                continue;
            }
            room = room.checked_sub(1)?;
            let mut reading = Reading::default();
            self.read_alone(&[piece], &mut reading)?;
            let service = the_only(marks(&reading).into_iter().map(|(_, service)| service))?;
            services.insert(service);
            pieces.push(Piece { digest: *digest, service });
        }
        pieces.extend(&old[old.len() - back..]);
        let mut gone = left.into_values().flatten();
        services.extend(gone.by_ref().take(room).map(|piece| piece.service));
        (gone.next().is_none() && !services.contains(&OTHER)).then_some(News { text, pieces, services })
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

/// The service that all of these are; [`OTHER`] of none, `None` of several.
fn the_only(mut services: impl Iterator<Item = u64>) -> Option<u64> {
    let Some(first) = services.next() else { return Some(OTHER) };
    services.all(|service| service == first).then_some(first)
}

#[cfg(test)]
mod tests;
