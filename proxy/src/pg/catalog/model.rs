//! What is known of a database's objects, and how a name in a statement finds them.
//!
//! The session's search_path is not known here, nor are the types of a call's arguments. So a name
//! stands for every object it could stand for, in any schema, and what is found is all their natures
//! together.

use std::collections::{BTreeSet, HashMap};

use super::facts::{Event, Name};
use super::nature::Nature;

/// One object.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) name: Name,
    pub(super) nature: Nature,
    /// What in it decided its nature, from the outside inwards.
    pub(super) through: Option<String>,
    pub(super) shape: Shape,
}

/// What a name has to look like to mean an object, beyond being its name.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// A call with so many arguments.
    Routine {
        least: usize,
        most: usize,
    },
    /// With one operand or two.
    Operator {
        unary: bool,
    },
    Type,
    /// What INSERT, UPDATE and DELETE come to where rules take their place.
    Relation {
        replaced: [Option<Nature>; 3],
    },
}

/// What a name was found to stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'m> {
    /// All candidates together.
    pub nature: Nature,
    /// What decided inside the first candidate that is not harmless.
    pub through: Option<&'m str>,
}

/// The objects of a database by their names.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub(super) objects: Vec<Object>,
    routines: HashMap<String, Vec<usize>>,
    operators: HashMap<String, Vec<usize>>,
    types: HashMap<String, Vec<usize>>,
    relations: HashMap<String, Vec<usize>>,
    /// What converting values between built-in types may do.
    pub(super) implied: Nature,
    /// Custom parameters that routines set by name.
    pub(super) parameters: BTreeSet<String>,
}

impl Model {
    /// Takes an object in and says where it is.
    pub(super) fn add(&mut self, name: &Name, shape: Shape) -> usize {
        let place = self.objects.len();
        let names = match shape {
            Shape::Routine { .. } => &mut self.routines,
            Shape::Operator { .. } => &mut self.operators,
            Shape::Type => &mut self.types,
            Shape::Relation { .. } => &mut self.relations,
        };
        names.entry(name.local.clone()).or_default().push(place);
        self.objects.push(Object {
            name: name.clone(),
            nature: Nature::HARMLESS,
            through: None,
            shape,
        });
        place
    }

    /// A call of a function with so many arguments. A type's name with one argument is a cast.
    pub fn function(
        &self,
        schema: Option<&str>,
        name: &str,
        arguments: usize,
    ) -> Option<Found<'_>> {
        let fits = |object: &Object| match object.shape {
            Shape::Routine { least, most } => (least..=most).contains(&arguments),
            Shape::Operator { .. } | Shape::Type | Shape::Relation { .. } => true,
        };
        let cast = (arguments == 1).then_some(&self.types);
        self.join(
            [Some(&self.routines), cast].into_iter().flatten(),
            schema,
            name,
            fits,
        )
    }

    /// A call of a function, however it is made.
    pub(super) fn any_function(&self, name: &str) -> Option<Found<'_>> {
        self.join([&self.routines], None, name, |_| true)
    }

    /// A field taken of a row: where there is no such column, a function of one argument is called.
    pub fn field(&self, name: &str) -> Option<Found<'_>> {
        let fits = |object: &Object| matches!(object.shape, Shape::Routine { least, most } if least <= 1 && 1 <= most);
        self.join([&self.routines], None, name, fits)
    }

    /// An operator.
    pub fn operator(&self, schema: Option<&str>, name: &str, unary: bool) -> Option<Found<'_>> {
        let fits =
            |object: &Object| matches!(object.shape, Shape::Operator { unary: of } if of == unary);
        self.join([&self.operators], schema, name, fits)
    }

    /// An operator, whatever its operands.
    pub(super) fn any_operator(&self, name: &str) -> Option<Found<'_>> {
        self.join([&self.operators], None, name, |_| true)
    }

    /// A type that something is converted to. Every relation is one, too.
    pub fn type_name(&self, schema: Option<&str>, name: &str) -> Option<Found<'_>> {
        let row = || {
            let found = self.join([&self.relations], schema, name, |_| true)?;
            Some(Found {
                nature: Nature::HARMLESS,
                ..found
            })
        };
        self.join([&self.types], schema, name, |_| true)
            .or_else(row)
    }

    /// A relation that is read.
    pub fn relation(&self, schema: Option<&str>, name: &str) -> Option<Found<'_>> {
        self.join([&self.relations], schema, name, |_| true)
    }

    /// What a change of a relation's rows comes to where rules take its place; `None` where it, or
    /// another relation of that name, is changed itself.
    pub fn replaced(&self, schema: Option<&str>, name: &str, event: Event) -> Option<Nature> {
        let mut candidates = self.candidates(&self.relations, schema, name).peekable();
        candidates.peek()?;
        candidates.try_fold(Nature::HARMLESS, |all, object| match object.shape {
            Shape::Relation { replaced } => {
                Some(all.and(object.nature).and(replaced[event as usize]?))
            }
            Shape::Routine { .. } | Shape::Operator { .. } | Shape::Type => None,
        })
    }

    /// What any expression may do, since values are converted where nothing is written.
    pub fn implied(&self) -> Nature {
        self.implied
    }

    /// Custom parameters that routines set by name, in small letters.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.parameters.iter().map(String::as_str)
    }

    fn candidates<'m, 's>(
        &'m self,
        names: &'m HashMap<String, Vec<usize>>,
        schema: Option<&'s str>,
        name: &'s str,
    ) -> impl Iterator<Item = &'m Object> + use<'m, 's> {
        let places = names.get(name).into_iter().flatten();
        let objects = places.filter_map(|place| self.objects.get(*place));
        objects.filter(move |object| schema.is_none_or(|schema| object.name.schema == schema))
    }

    fn join<'m>(
        &'m self,
        names: impl IntoIterator<Item = &'m HashMap<String, Vec<usize>>>,
        schema: Option<&str>,
        name: &str,
        fits: impl Fn(&Object) -> bool,
    ) -> Option<Found<'m>> {
        let mut found: Option<Found<'m>> = None;
        for names in names {
            for object in self.candidates(names, schema, name).filter(|o| fits(o)) {
                let so_far = found.get_or_insert(Found {
                    nature: Nature::HARMLESS,
                    through: None,
                });
                so_far.nature = so_far.nature.and(object.nature);
                so_far.through = so_far.through.or(object.through.as_deref());
            }
        }
        found
    }
}
