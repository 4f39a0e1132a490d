//! Attributes in the form of OTLP.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue,
};

/// The name of the agent as a source of signals.
pub(super) const SCOPE: &str = "system-agent";

/// Returns an attribute with a text.
pub(super) fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

/// Returns an attribute with a number.
pub(super) fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

/// Returns an attribute with a list of texts.
pub(super) fn texts(key: &str, values: impl IntoIterator<Item = String>) -> KeyValue {
    let values = values.into_iter().map(|text| any(Value::StringValue(text)));
    let values = values.collect();
    attribute(key, Value::ArrayValue(ArrayValue { values }))
}

/// Returns a value.
pub(super) fn any(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

/// Returns the scope of all signals of the agent.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: SCOPE.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(any(value)),
        ..KeyValue::default()
    }
}
