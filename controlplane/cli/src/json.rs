//! Messages as the JSON of protocol buffers, by the contract's own descriptors: what `grpcurl` prints.

use std::{collections::HashMap, sync::LazyLock};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ferrypost_proto::DESCRIPTORS;
use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use serde_json::{Map, Value};

/// A message of the package `ferrypost.v1`.
///
/// # Panics
/// Never: what is encoded here was encoded by the code that was generated from the same descriptors.
pub(crate) fn of(name: &str, message: &impl Message) -> Value {
    let name = format!(".ferrypost.v1.{name}");
    object(&name, &message.encode_to_vec()).expect("an encoded message of the contract")
}

/// Everything that the descriptors describe, by full name with a leading dot, as fields refer to it.
struct Types {
    messages: HashMap<String, DescriptorProto>,
    enums: HashMap<String, EnumDescriptorProto>,
}

static TYPES: LazyLock<Types> = LazyLock::new(|| {
    let set = FileDescriptorSet::decode(DESCRIPTORS).expect("the contract's descriptors");
    let mut types = Types {
        messages: HashMap::new(),
        enums: HashMap::new(),
    };
    for file in set.file {
        let package = format!(".{}", file.package());
        types.add(&package, file.message_type, file.enum_type);
    }
    types
});

impl Types {
    fn add(
        &mut self,
        scope: &str,
        messages: Vec<DescriptorProto>,
        enums: Vec<EnumDescriptorProto>,
    ) {
        for described in enums {
            self.enums
                .insert(format!("{scope}.{}", described.name()), described);
        }
        for mut described in messages {
            let name = format!("{scope}.{}", described.name());
            let (messages, enums) = (
                std::mem::take(&mut described.nested_type),
                std::mem::take(&mut described.enum_type),
            );
            self.add(&name, messages, enums);
            // Asked again below, for entries of maps.
            self.messages.insert(name, described);
        }
    }
}

/// The value of a field as it lies on the wire.
enum Wire<'a> {
    Varint(u64),
    Fixed32([u8; 4]),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
}

fn object(name: &str, mut bytes: &[u8]) -> Option<Value> {
    let described = TYPES.messages.get(name)?;
    let mut object = Map::new();
    while !bytes.is_empty() {
        let (number, wire) = field(&mut bytes)?;
        let mut fields = described.field.iter();
        let field = fields.find(|it| u64::from(it.number().unsigned_abs()) == number)?;
        let key = field.json_name().to_owned();
        if field.label() != Label::Repeated {
            object.insert(key, value(field, &wire)?);
        } else if let Some((entry_key, entry)) = entry(field, &wire) {
            let map = object
                .entry(key)
                .or_insert_with(|| Value::Object(Map::new()));
            map.as_object_mut()?.insert(entry_key, entry);
        } else {
            let list = object
                .entry(key)
                .or_insert_with(|| Value::Array(Vec::new()));
            list.as_array_mut()?.extend(values(field, &wire)?);
        }
    }
    Some(Value::Object(object))
}

/// An entry of a map, which is a message of a key and a value.
fn entry(field: &FieldDescriptorProto, wire: &Wire<'_>) -> Option<(String, Value)> {
    let described = TYPES.messages.get(field.type_name())?;
    if !described.options.as_ref()?.map_entry() {
        return None;
    }
    let Wire::Bytes(bytes) = wire else {
        return None;
    };
    let entry = object(field.type_name(), bytes)?;
    let text = |key: &str| {
        entry
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    Some((text("key"), Value::String(text("value"))))
}

/// A repeated field's value, or as many of them as are packed into it.
fn values(field: &FieldDescriptorProto, wire: &Wire<'_>) -> Option<Vec<Value>> {
    let single = matches!(field.r#type(), Type::String | Type::Bytes | Type::Message);
    match wire {
        Wire::Bytes(packed) if !single => {
            let mut rest = *packed;
            let mut values = Vec::new();
            while !rest.is_empty() {
                values.push(value(field, &Wire::Varint(varint(&mut rest)?))?);
            }
            Some(values)
        }
        wire => Some(vec![value(field, wire)?]),
    }
}

#[expect(
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation,
    reason = "the wire's own form: negative numbers are sent as 64 bits"
)]
fn value(field: &FieldDescriptorProto, wire: &Wire<'_>) -> Option<Value> {
    Some(match (field.r#type(), wire) {
        (Type::String, Wire::Bytes(bytes)) => String::from_utf8_lossy(bytes).into(),
        (Type::Bytes, Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Type::Message, Wire::Bytes(bytes)) => match field.type_name() {
            ".google.protobuf.Timestamp" => prost_types::Timestamp::decode(*bytes)
                .ok()?
                .to_string()
                .into(),
            ".google.protobuf.Duration" => prost_types::Duration::decode(*bytes)
                .ok()?
                .to_string()
                .into(),
            name => object(name, bytes)?,
        },
        (Type::Bool, Wire::Varint(number)) => (*number != 0).into(),
        (Type::Enum, Wire::Varint(number)) => enumerator(field.type_name(), *number as i32),
        (Type::Uint32, Wire::Varint(number)) => number.to_owned().into(),
        (Type::Int32, Wire::Varint(number)) => (*number as i32).into(),
        // Numbers that JavaScript could not hold are text.
        (Type::Uint64, Wire::Varint(number)) => number.to_string().into(),
        (Type::Int64, Wire::Varint(number)) => (*number as i64).to_string().into(),
        (Type::Float, Wire::Fixed32(bytes)) => f32::from_le_bytes(*bytes).into(),
        (Type::Double, Wire::Fixed64(bytes)) => f64::from_le_bytes(*bytes).into(),
        _ => return None,
    })
}

/// A value's name; its number where the contract has none.
fn enumerator(name: &str, number: i32) -> Value {
    let values = TYPES.enums.get(name).map(|it| &it.value);
    let mut values = values.into_iter().flatten();
    match values.find(|it| it.number() == number) {
        Some(value) => value.name().into(),
        None => number.into(),
    }
}

fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Wire<'a>)> {
    let tag = varint(bytes)?;
    let wire = match tag & 7 {
        0 => Wire::Varint(varint(bytes)?),
        1 => Wire::Fixed64(take(bytes, 8)?.try_into().ok()?),
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            Wire::Bytes(take(bytes, length)?)
        }
        5 => Wire::Fixed32(take(bytes, 4)?.try_into().ok()?),
        _ => return None,
    };
    Some((tag >> 3, wire))
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = *take(bytes, 1)?.first()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use ferrypost_proto::v1;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_what_grpcurl_prints() {
        let migration = v1::Migration {
            migration_id: "m".into(),
            accounts: vec![v1::MigratingAccount {
                account_id: "a".into(),
                names: vec!["a@example.org".into(), "b".into()],
            }],
            state: v1::MigrationState::Succeeded.into(),
            requested_at: Some(prost_types::Timestamp {
                seconds: 1_800_000_000,
                nanos: 5_000_000,
            }),
            held: Some(prost_types::Duration {
                seconds: 0,
                nanos: 246_000_000,
            }),
            attempts: 1,
            data_planes: vec![v1::DataPlaneProgress {
                instance: "g".into(),
                drained: true,
                ..v1::DataPlaneProgress::default()
            }],
            ..v1::Migration::default()
        };
        assert_eq!(
            of("Migration", &migration),
            json!({
                "migrationId": "m",
                "accounts": [{"accountId": "a", "names": ["a@example.org", "b"]}],
                "state": "MIGRATION_STATE_SUCCEEDED",
                "requestedAt": "2027-01-15T08:00:00.005Z",
                "held": "0.246s",
                "attempts": 1,
                "dataPlanes": [{"instance": "g", "drained": true}],
            })
        );
    }

    #[test]
    fn large_numbers_unknown_values_and_packed_lists_have_their_forms() {
        let revision = v1::Revision { base: 0, store: 7 };
        assert_eq!(of("Revision", &revision), json!({"store": "7"}));
        let config = v1::RoutingConfig {
            destinations: vec![v1::Destination {
                without: vec![v1::Protocol::Pop3.into(), 99],
                endpoints: vec![v1::Endpoint {
                    tls: Some(v1::EndpointTls {
                        mode: v1::endpoint_tls::Mode::Starttls.into(),
                        ..v1::EndpointTls::default()
                    }),
                    ..v1::Endpoint::default()
                }],
                ..v1::Destination::default()
            }],
            ..v1::RoutingConfig::default()
        };
        let shown = of("RoutingConfig", &config);
        let destination = &shown["destinations"][0];
        assert_eq!(destination["without"], json!(["PROTOCOL_POP3", 99]));
        assert_eq!(destination["endpoints"][0]["tls"]["mode"], "MODE_STARTTLS");
    }
}
