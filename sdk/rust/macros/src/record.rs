//! `#[derive(Record)]`.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Fields, Ident, LitStr, Result, Type, Visibility};

/// A field of the struct.
struct Member<'a> {
    ident: &'a Ident,
    /// the column's name
    name: String,
    /// the associated constant
    constant: Ident,
    visibility: &'a Visibility,
    ty: &'a Type,
}

pub(crate) fn derive(input: DeriveInput) -> Result<TokenStream> {
    let members = members(&input)?;
    let DeriveInput { vis, ident, .. } = &input;
    let reference = format_ident!("{ident}Ref");
    let reference_doc = format!("A borrowed row of [`{ident}`].");
    let names: Vec<_> = members.iter().map(|member| member.ident).collect();
    let types: Vec<_> = members.iter().map(|member| member.ty).collect();
    let visibilities: Vec<_> = members.iter().map(|member| member.visibility).collect();
    let columns: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
    let docs = columns.iter().map(|column| format!("the field `{column}`"));
    // A struct has far fewer fields than 2^32.
    let count = members.len() as u32;
    let constants = constants(&members);
    // What the type of a field lacks is said at the field.
    let widths = types.iter().map(|ty| quote_spanned!(ty.span()=> <#ty as ::millstream::Record>::WIDTH));
    let records: Vec<_> = types.iter().map(|ty| quote_spanned!(ty.span()=> ::millstream::Record)).collect();
    let row_type = Ident::new("__Row", Span::mixed_site());
    Ok(quote! {
        #[doc = #reference_doc]
        #[derive(Clone, Copy, Debug)]
        #vis struct #reference<'a> {
            #(#[doc = #docs] #visibilities #names: <#types as #records>::Ref<'a>,)*
            #[doc(hidden)]
            #row_type: ::core::marker::PhantomData<&'a ()>,
        }

        #[allow(dead_code, reason = "a job names the fields that it needs")]
        impl #ident {
            #constants
        }

        #[allow(dead_code, reason = "one may also emit a tuple, or the struct itself")]
        impl<'a> #reference<'a> {
            /// A row of these fields, in their order, to be emitted.
            #[allow(clippy::too_many_arguments, reason = "a row has as many fields as it has")]
            #vis fn new(#(#names: <#types as #records>::Ref<'a>),*) -> #reference<'a> {
                #reference { #(#names,)* #row_type: ::core::marker::PhantomData }
            }
        }

        const _: () = {
            use ::millstream::Record;
            use ::millstream::private::{Builder, Column, Cursor, DataType, SchemaField, Sequence, Values};

            #[derive(Clone, Copy)]
            pub struct Reader<'a> {
                #(#names: <#types as Record>::Reader<'a>,)*
                #row_type: ::core::marker::PhantomData<&'a ()>,
            }

            #[derive(Default)]
            pub struct Columns {
                #(#names: <#types as Record>::Builder,)*
            }

            impl Builder for Columns {
                fn push_empty(&mut self) {
                    #(self.#names.push_empty();)*
                }

                fn truncate(&mut self, rows: usize) {
                    #(Builder::truncate(&mut self.#names, rows);)*
                }

                fn finish(&mut self, columns: &mut ::std::vec::Vec<Column>) {
                    columns.push(Column {
                        values: Values::Nothing,
                        validity: ::core::option::Option::None,
                    });
                    #(Builder::finish(&mut self.#names, columns);)*
                }
            }

            impl Record for #ident {
                type Ref<'a> = #reference<'a>;
                type Reader<'a> = Reader<'a>;
                type Builder = Columns;
                type List = Sequence<Self>;
                const WIDTH: u32 = 1 #(+ #widths)*;
                const IS_STRUCT: bool = true;

                fn describe(name: &str, nullable: bool, fields: &mut ::std::vec::Vec<SchemaField>) {
                    fields.push(SchemaField {
                        name: name.into(),
                        data_type: DataType::Structure(#count),
                        nullable,
                    });
                    #(<#types as Record>::describe(#columns, false, fields);)*
                }

                fn read<'a>(columns: &mut Cursor<'a>) -> Reader<'a> {
                    columns.structure();
                    Reader {
                        #(#names: <#types as Record>::read(columns),)*
                        #row_type: ::core::marker::PhantomData,
                    }
                }

                #[inline(always)]
                fn get<'a>(reader: &Self::Reader<'a>, row: usize) -> Self::Ref<'a> {
                    #reference {
                        #(#names: <#types as Record>::get(&reader.#names, row),)*
                        #row_type: ::core::marker::PhantomData,
                    }
                }

                fn as_row(&self) -> #reference<'_> {
                    #reference {
                        #(#names: <#types as Record>::as_row(&self.#names),)*
                        #row_type: ::core::marker::PhantomData,
                    }
                }

                fn from_row(row: #reference<'_>) -> Self {
                    #ident { #(#names: <#types as Record>::from_row(row.#names),)* }
                }
            }

            impl ::millstream::Row<#ident> for #reference<'_> {
                #[inline(always)]
                fn append_to(self, builder: &mut Columns) {
                    #(::millstream::Row::<#types>::append_to(self.#names, &mut builder.#names);)*
                }
            }

            impl ::millstream::Row<#ident> for #ident {
                #[inline(always)]
                fn append_to(self, builder: &mut Columns) {
                    ::millstream::Row::<#ident>::append_to(self.as_row(), builder);
                }
            }

            impl ::millstream::Row<#ident> for &#ident {
                #[inline(always)]
                fn append_to(self, builder: &mut Columns) {
                    ::millstream::Row::<#ident>::append_to(self.as_row(), builder);
                }
            }
        };
    })
}

/// A constant for each field: its column is after those of the fields before it.
fn constants(members: &[Member<'_>]) -> TokenStream {
    let mut constants = TokenStream::new();
    for (place, member) in members.iter().enumerate() {
        let Member { constant, visibility, ty, name, .. } = member;
        let before = members[..place].iter().map(|member| member.ty);
        let doc = format!("The field `{name}`.");
        constants.extend(quote! {
            #[doc = #doc]
            #visibility const #constant: ::millstream::Field<Self, #ty> =
                ::millstream::Field::new(0 #(+ <#before as ::millstream::Record>::WIDTH)*);
        });
    }
    constants
}

fn members(input: &DeriveInput) -> Result<Vec<Member<'_>>> {
    let fields = match &input.data {
        Data::Struct(data) => &data.fields,
        Data::Enum(data) => {
            let message = "a row is a struct: an enum has no columns (use a field of the type `String`, or an \
                           `Option` for each case)";
            return Err(Error::new(data.enum_token.span(), message));
        }
        Data::Union(data) => return Err(Error::new(data.union_token.span(), "a row is a struct")),
    };
    if let Some(parameter) = input.generics.params.first() {
        return Err(Error::new(parameter.span(), "a row has columns of fixed types: no parameters"));
    }
    let named = match fields {
        Fields::Named(named) if !named.named.is_empty() => &named.named,
        Fields::Unnamed(unnamed) => {
            let message = "columns have names: name the fields, or use a tuple";
            return Err(Error::new(unnamed.span(), message));
        }
        _ => return Err(Error::new(input.ident.span(), "a row has one field at least")),
    };
    let style = style(&input.attrs)?;
    let mut members: Vec<Member<'_>> = Vec::new();
    for field in named {
        let Some(ident) = &field.ident else { continue };
        if let Type::Reference(reference) = &field.ty {
            let message =
                "a row owns its fields: closures get them borrowed all the same (`String` as `&str`)";
            return Err(Error::new(reference.span(), message));
        }
        let plain = ident.unraw().to_string();
        let constant = Ident::new(&plain.to_uppercase(), ident.span());
        let name = match given_name(&field.attrs)? {
            Some(name) => name,
            None => style.name(plain),
        };
        members.push(Member { ident, name, constant, visibility: &field.vis, ty: &field.ty });
    }
    Ok(members)
}

/// How columns are named after fields.
#[derive(Clone, Copy)]
enum Style {
    AsFields,
    CamelCase,
}

impl Style {
    fn name(self, field: String) -> String {
        match self {
            Style::AsFields => field,
            Style::CamelCase => {
                let mut words = field.split('_').filter(|word| !word.is_empty());
                let mut name = words.next().unwrap_or_default().to_string();
                for word in words {
                    let mut letters = word.chars();
                    name.extend(letters.next().into_iter().flat_map(char::to_uppercase));
                    name.push_str(letters.as_str());
                }
                name
            }
        }
    }
}

/// `#[record(rename_all = "camelCase")]` of the struct.
fn style(attributes: &[Attribute]) -> Result<Style> {
    let mut style = Style::AsFields;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("record")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("rename_all") {
                return Err(meta.error("a struct has `rename_all = \"camelCase\"`"));
            }
            let text: LitStr = meta.value()?.parse()?;
            if text.value() != "camelCase" {
                return Err(Error::new(text.span(), "columns are named as the fields, or in `camelCase`"));
            }
            style = Style::CamelCase;
            Ok(())
        })?;
    }
    Ok(style)
}

/// `#[record(name = "dateTime")]` of a field.
fn given_name(attributes: &[Attribute]) -> Result<Option<String>> {
    let mut name = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("record")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("name") {
                return Err(meta.error("a field has `name = \"…\"`"));
            }
            let text: LitStr = meta.value()?.parse()?;
            if text.value().is_empty() {
                return Err(Error::new(text.span(), "a column has a name"));
            }
            name = Some(text.value());
            Ok(())
        })?;
    }
    Ok(name)
}
