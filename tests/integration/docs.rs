//! Generates `docs/snapshot.md` from the documentation comments in `src/model`, and compares the model with the schema.
//! A test fails if the page or the schema does not match the model. `make docs` writes the page.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::Value;
use serial_test::parallel;
use syn::{Attribute, Expr, Fields, GenericArgument, Item, Lit, Meta, PathArguments, Type};

use crate::support::schema::PUBLISHED;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/snapshot.md");
const HEAD: &str = "\
# The snapshot

Each line that the agent sends is one JSON object, a snapshot. It describes the host and its containers at one moment.
Later versions can add fields. They do not remove a field, and they do not change its type or unit. If the host does not
offer a figure, the field is absent. It is never zero instead. `config/snapshot.schema.json` is the JSON Schema of a snapshot.

`make docs` generates this page from the documentation comments in `src/model`.
";

const KERNEL: &str = "
## Kernel

The section `kernel` has the kernel's own figures: all that the kernel says about memory, block devices, network interfaces, protocols, sensors
and more. The agent reads them only while somebody wants them: a client that names the section, as in
`{\"sections\":[\"system\",\"kernel\"]}`, or a scrape of `/metrics`.

The keys are the names of node_exporter's collectors, such as `meminfo` or `netdev`. Each value is one of these:

* an object with the figures, by the names that the kernel gives to them: `\"vmstat\":{\"pgfault\":5}`;
* an array with an object for each device. The object has the names of the device and its figures: `\"netclass\":[{\"device\":\"eth0\",\"mtu\":1500}]`;
* an object with the text `error`, if the figures cannot be read.

A family that the host does not have is absent. Amounts are in bytes and times in seconds. Counters count since the boot of the host, or since
the device was added. [metrics.md](metrics.md) lists all figures: the column `kernel` has the family and the name of each.
";

/// The types of the model with their documentation.
#[derive(Default)]
struct Model {
    structs: BTreeMap<String, Struct>,
    enums: BTreeMap<String, Vec<String>>,
}

struct Struct {
    docs: String,
    fields: Vec<Field>,
}

struct Field {
    name: String,
    docs: String,
    kind: Kind,
    /// Whether a snapshot can omit the field.
    optional: bool,
}

/// The type of a field in JSON.
#[derive(Clone)]
enum Kind {
    Number,
    /// A number, or a text for a value that JSON has no number for.
    AnyNumber,
    Integer,
    Text,
    Boolean,
    Timestamp,
    OrNull(Box<Kind>),
    Array(Box<Kind>),
    /// An object whose keys are names from the host or the engine.
    Map(Box<Kind>),
    Named(String),
    /// The kernel's own figures.
    Kernel,
}

impl Model {
    fn read() -> Self {
        let mut model = Self::default();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model");
        for file in fs::read_dir(folder).unwrap() {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            for item in syn::parse_file(&text).unwrap().items {
                model.add(&item);
            }
        }
        model
    }

    fn add(&mut self, item: &Item) {
        match item {
            Item::Struct(one) => {
                let Fields::Named(named) = &one.fields else {
                    return;
                };
                let all = serde(&one.attrs, "rename_all");
                let on_the_wire = named
                    .named
                    .iter()
                    .filter(|field| serde(&field.attrs, "skip").is_none());
                let fields = on_the_wire.map(|field| {
                    let name = field.ident.as_ref().unwrap().to_string();
                    let renamed = serde(&field.attrs, "rename");
                    Field {
                        name: renamed.unwrap_or_else(|| cased(&name, all.as_deref())),
                        docs: docs(&field.attrs),
                        optional: serde(&field.attrs, "skip_serializing_if").is_some(),
                        kind: kind(&field.ty, &field.attrs),
                    }
                });
                let described = Struct {
                    docs: docs(&one.attrs),
                    fields: fields.collect(),
                };
                self.structs.insert(one.ident.to_string(), described);
            }
            Item::Enum(one) => {
                let all = serde(&one.attrs, "rename_all");
                // The untagged variant is for values of later versions. The agent can read such values but never sends them.
                // A variant can also stand for an absent field.
                let sent = |variant: &&syn::Variant| {
                    let is = |name| serde(&variant.attrs, name).is_some();
                    !is("untagged") && !is("skip")
                };
                let variants = one.variants.iter().filter(sent).map(|variant| {
                    let name = variant.ident.to_string();
                    serde(&variant.attrs, "rename").unwrap_or_else(|| cased(&name, all.as_deref()))
                });
                self.enums.insert(one.ident.to_string(), variants.collect());
            }
            _ => {}
        }
    }

    fn struct_of<'k>(&self, kind: &'k Kind) -> Option<&'k str> {
        match kind {
            Kind::Named(name) => self.structs.contains_key(name).then_some(name),
            Kind::OrNull(kind) | Kind::Array(kind) | Kind::Map(kind) => self.struct_of(kind),
            _ => None,
        }
    }

    fn type_text(&self, kind: &Kind) -> String {
        match kind {
            Kind::Number => "number".to_owned(),
            Kind::AnyNumber => "number, `NaN`, `+Inf`, `-Inf`".to_owned(),
            Kind::Integer => "integer".to_owned(),
            Kind::Text => "string".to_owned(),
            Kind::Boolean => "boolean".to_owned(),
            Kind::Timestamp => "string, RFC 3339".to_owned(),
            Kind::Kernel => "[object](#kernel)".to_owned(),
            Kind::OrNull(kind) => format!("{}, or null", self.type_text(kind)),
            Kind::Array(kind) => format!("array of {}", self.type_text(kind)),
            Kind::Map(kind) => format!("object of {} by name", self.type_text(kind)),
            Kind::Named(name) => match self.enums.get(name) {
                Some(values) => format!("`{}`", values.join("`, `")),
                None if self.structs.contains_key(name) => format!("[object](#{})", anchor(name)),
                None => panic!("this test does not know the type {name}"),
            },
        }
    }

    /// The structs in a snapshot, in the order of their first use.
    fn reachable(&self) -> Vec<&str> {
        let mut found = vec!["Snapshot"];
        let mut next = 0;
        while let Some(name) = found.get(next) {
            let fields = &self.structs[*name].fields;
            let below = fields
                .iter()
                .filter_map(|field| self.struct_of(&field.kind));
            for name in below.collect::<Vec<_>>() {
                if !found.contains(&name) {
                    found.push(name);
                }
            }
            next += 1;
        }
        found
    }

    fn page(&self) -> String {
        let mut page = HEAD.to_owned();
        for name in self.reachable() {
            page += &self.section(name);
        }
        page += KERNEL;
        page += &self.section("History");
        page
    }

    /// The section about one struct.
    fn section(&self, name: &str) -> String {
        let Struct { docs, fields } = &self.structs[name];
        let title = title(name);
        let mut section = format!("\n## {title}\n\n{docs}\n\n| field | type | |\n|---|---|---|\n");
        for field in fields {
            let absent = if field.optional {
                ", can be absent"
            } else {
                ""
            };
            let type_text = self.type_text(&field.kind);
            let docs = field.docs.replace('|', "\\|");
            writeln!(
                section,
                "| `{}` | {type_text}{absent} | {docs} |",
                field.name
            )
            .unwrap();
        }
        section
    }

    /// Adds the paths of all fields below a struct to `paths`.
    fn paths(&self, name: &str, at: &str, paths: &mut BTreeSet<String>) {
        for field in &self.structs[name].fields {
            let path = format!("{at}/{}", field.name);
            if let Some(below) = self.struct_of(&field.kind) {
                self.paths(below, &path, paths);
            }
            paths.insert(path);
        }
    }
}

/// Turns `NetworkInterface` into `Network interface`.
fn title(name: &str) -> String {
    let mut title = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !title.is_empty() {
            title.push(' ');
            title.extend(letter.to_lowercase());
        } else {
            title.push(letter);
        }
    }
    title
}

fn anchor(name: &str) -> String {
    title(name).to_lowercase().replace(' ', "-")
}

fn cased(name: &str, case: Option<&str>) -> String {
    match case {
        Some("lowercase") => name.to_lowercase(),
        Some("snake_case") => title(name).to_lowercase().replace(' ', "_"),
        Some("PascalCase") => name
            .split('_')
            .map(|part| part[..1].to_uppercase() + &part[1..])
            .collect(),
        None => name.to_owned(),
        Some(other) => panic!("this test does not know the case {other}"),
    }
}

/// The value of a key in `#[serde(…)]`. An empty text if the key has no value.
fn serde(attributes: &[Attribute], wanted: &str) -> Option<String> {
    let mut found = None;
    for attribute in attributes.iter().filter(|one| one.path().is_ident("serde")) {
        attribute
            .parse_nested_meta(|meta| {
                let value = match meta.value() {
                    Ok(value) => value.parse::<syn::LitStr>()?.value(),
                    Err(_) => String::new(),
                };
                if meta.path.is_ident(wanted) {
                    found = Some(value);
                }
                Ok(())
            })
            .expect("cannot parse the serde attribute");
    }
    found
}

/// The documentation comment in one line.
fn docs(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| {
        let Meta::NameValue(meta) = &attribute.meta else {
            return None;
        };
        let (true, Expr::Lit(text)) = (meta.path.is_ident("doc"), &meta.value) else {
            return None;
        };
        let Lit::Str(text) = &text.lit else {
            return None;
        };
        Some(text.value().trim().to_owned())
    });
    lines.collect::<Vec<_>>().join(" ").trim().to_owned()
}

fn kind(ty: &Type, attributes: &[Attribute]) -> Kind {
    let inner = |arguments: &PathArguments, index: usize| match arguments {
        PathArguments::AngleBracketed(arguments) => {
            let types = arguments.args.iter().filter_map(|one| match one {
                GenericArgument::Type(ty) => Some(kind(ty, &[])),
                _ => None,
            });
            Box::new(types.collect::<Vec<_>>().swap_remove(index))
        }
        _ => panic!("the type has no arguments"),
    };
    match ty {
        Type::Array(array) => Kind::Array(Box::new(kind(&array.elem, &[]))),
        Type::Slice(slice) => Kind::Array(Box::new(kind(&slice.elem, &[]))),
        Type::Path(path) => {
            let last = path.path.segments.last().unwrap();
            match last.ident.to_string().as_str() {
                "f64" if serde(attributes, "serialize_with").is_some() => Kind::AnyNumber,
                "f64" => Kind::Number,
                "u64" | "u32" | "u16" | "i64" => Kind::Integer,
                "String" | "str" => Kind::Text,
                "bool" => Kind::Boolean,
                "Timestamp" => Kind::Timestamp,
                "Arc" => *inner(&last.arguments, 0),
                // Labels: pairs of texts.
                "Vec" if serde(attributes, "serialize_with").is_some() => {
                    Kind::Map(Box::new(Kind::Text))
                }
                "Vec" => Kind::Array(inner(&last.arguments, 0)),
                "BTreeMap" => Kind::Map(inner(&last.arguments, 1)),
                "Option" if serde(attributes, "skip_serializing_if").is_some() => {
                    *inner(&last.arguments, 0)
                }
                "Option" => Kind::OrNull(inner(&last.arguments, 0)),
                "Kernel" => Kind::Kernel,
                "Textfiles" => Kind::Array(Box::new(Kind::Named("Textfile".to_owned()))),
                "HistoryColumn" => Kind::Array(Box::new(Kind::OrNull(Box::new(Kind::Number)))),
                "Interfaces" => Kind::Map(Box::new(Kind::Named("InterfaceCounters".to_owned()))),
                "Logs" => Kind::Map(Box::new(Kind::Array(Box::new(Kind::Text)))),
                name => Kind::Named(name.to_owned()),
            }
        }
        // A snapshot contains no such type.
        _ => Kind::Named("a type without a name".to_owned()),
    }
}

#[test]
#[parallel]
fn the_page_matches_the_model() {
    let page = Model::read().page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(Path::new(PAGE).parent().unwrap()).unwrap();
        fs::write(PAGE, &page).unwrap();
    }
    let written = fs::read_to_string(PAGE).unwrap_or_default();
    let differs = page.lines().zip(written.lines()).find(|(a, b)| a != b);
    assert!(
        page == written,
        "docs/snapshot.md does not match the model (run make docs): {differs:#?}"
    );
}

/// The documentation of each figure names the source of the figure. It is enough if the documentation of the object that contains
/// the figure names the source.
#[test]
#[parallel]
fn the_documentation_of_every_figure_names_a_source() {
    let model = Model::read();
    let mut without = Vec::new();
    let mut sourced: BTreeSet<&str> = BTreeSet::from([
        "AgentInfo",
        "Snapshot",
        "SourceHealth",
        "OutputHealth",
        "ContainerMeta",
        "Port",
    ]);
    for name in model.reachable() {
        let described = &model.structs[name];
        let all = sourced.contains(name) || described.docs.contains("Source: ");
        for field in &described.fields {
            let has_source = all || field.docs.contains("Source: ");
            match model.struct_of(&field.kind) {
                Some(below) if has_source => {
                    sourced.insert(below);
                }
                Some(_) => {}
                None if has_source => {}
                None => without.push(format!("{name}.{}", field.name)),
            }
        }
    }
    assert_eq!(
        without,
        Vec::<String>::new(),
        "the documentation names no source for these figures"
    );
}

#[test]
#[parallel]
fn the_schema_and_the_model_have_the_same_fields() {
    let model = Model::read();
    let mut of_model = BTreeSet::new();
    model.paths("Snapshot", "", &mut of_model);
    let schema: Value = serde_json::from_str(PUBLISHED).unwrap();
    let mut of_schema = BTreeSet::new();
    properties(&schema, &schema, "", &mut of_schema);
    // A history is a line of its own. The definition in the schema and the type have the same name.
    model.paths("History", "/history", &mut of_model);
    let history = &schema["$defs"]["history_line"];
    properties(&schema, history, "", &mut of_schema);
    of_model.insert("/history".to_owned());
    let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| -> Vec<String> {
        a.difference(b).cloned().collect()
    };
    assert_eq!(
        only(&of_model, &of_schema),
        Vec::<String>::new(),
        "these fields are not in the schema"
    );
    assert_eq!(
        only(&of_schema, &of_model),
        Vec::<String>::new(),
        "these fields are not in the model"
    );
}

/// Adds the paths of all properties below a part of the schema to `paths`.
fn properties(schema: &Value, part: &Value, at: &str, paths: &mut BTreeSet<String>) {
    if let Some(pointer) = part["$ref"].as_str() {
        let part = schema.pointer(pointer.trim_start_matches('#')).unwrap();
        properties(schema, part, at, paths);
    }
    for below in ["items", "additionalProperties"] {
        if let Some(part) = part.get(below) {
            properties(schema, part, at, paths);
        }
    }
    for (name, property) in part["properties"].as_object().into_iter().flatten() {
        let path = format!("{at}/{name}");
        properties(schema, property, &path, paths);
        paths.insert(path);
    }
}
