//! One line a variable: what it says, and what comes of it.

use super::*;

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");

fn read(variables: &[(&str, &str)]) -> (Settings, Vec<String>) {
    Settings::of(
        variables
            .iter()
            .map(|(name, value)| (name.into(), value.into())),
    )
}

/// With a collector for all signals.
fn with(variables: &[(&str, &str)]) -> (Settings, Vec<String>) {
    read(&[&[ENDPOINT][..], variables].concat())
}

/// The same, where nothing is to be complained of.
fn taken(variables: &[(&str, &str)]) -> Settings {
    let (settings, complaints) = with(variables);
    assert_eq!(complaints, Vec::<String>::new(), "{variables:?}");
    settings
}

/// The same, where exactly this variable is complained of.
fn complained(name: &str, value: &str) -> Settings {
    let (settings, complaints) = with(&[(name, value)]);
    assert_eq!(complaints.len(), 1, "{name}={value}: {complaints:?}");
    assert!(
        complaints[0].starts_with(&format!("{name} ")),
        "{complaints:?}"
    );
    settings
}

fn exported(settings: &Settings) -> [bool; 3] {
    [
        settings.traces.is_some(),
        settings.metrics.is_some(),
        settings.logs.is_some(),
    ]
}

fn target(settings: &Settings) -> &Target {
    &settings.traces.as_ref().expect("exported").target
}

#[test]
fn nothing_is_exported_where_nobody_says_where_to() {
    for variables in [
        &[][..],
        &[("OTEL_SERVICE_NAME", "mail")],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
        &[("OTEL_EXPORTER_OTLP_HEADERS", "a=b")],
    ] {
        assert!(read(variables).0.is_idle(), "{variables:?}");
    }
    let (settings, _) = read(&[("OTEL_TRACES_EXPORTER", "otlp")]);
    assert_eq!(exported(&settings), [true, false, false]);
    assert_eq!(target(&settings).endpoint, "http://localhost:4317/");
    let (settings, _) = read(&[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://m:1")]);
    assert_eq!(exported(&settings), [false, true, false]);
}

#[test]
fn all_of_it_can_be_switched_off_and_each_signal_alone() {
    assert_eq!(exported(&taken(&[])), [true; 3]);
    assert!(taken(&[("OTEL_SDK_DISABLED", "TRUE")]).is_idle());
    assert!(!taken(&[("OTEL_SDK_DISABLED", "false")]).is_idle());
    assert!(!complained("OTEL_SDK_DISABLED", "1").is_idle());
    let off = |name| exported(&taken(&[(name, "none")]));
    assert_eq!(off("OTEL_TRACES_EXPORTER"), [false, true, true]);
    assert_eq!(off("OTEL_METRICS_EXPORTER"), [true, false, true]);
    assert_eq!(off("OTEL_LOGS_EXPORTER"), [true, true, false]);
}

#[test]
fn what_is_not_built_in_is_not_exported_and_nothing_takes_its_place() {
    let other = |name, value| exported(&complained(name, value));
    assert_eq!(other("OTEL_TRACES_EXPORTER", "zipkin"), [false, true, true]);
    assert_eq!(
        other("OTEL_METRICS_EXPORTER", "prometheus"),
        [true, false, true]
    );
    assert_eq!(
        other("OTEL_LOGS_EXPORTER", "otlp,console"),
        [true, true, false]
    );
    assert_eq!(
        other("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        [false; 3]
    );
    let of_metrics = "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL";
    assert_eq!(other(of_metrics, "http/json"), [true, false, true]);
    assert_eq!(exported(&taken(&[(of_metrics, "grpc")])), [true; 3]);
}

#[test]
fn the_endpoint_of_a_signal_goes_before_the_one_for_all() {
    let of_logs = (
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
        "https://logs.example.org",
    );
    let settings = taken(&[of_logs]);
    assert_eq!(target(&settings).endpoint, "http://collector:4317/");
    let logs = settings.logs.expect("exported");
    assert_eq!(logs.target.endpoint, "https://logs.example.org/");
}

#[test]
fn without_a_scheme_a_leg_is_encrypted_unless_it_is_said_otherwise() {
    let endpoint = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "c:4317");
    let insecure = "OTEL_EXPORTER_OTLP_INSECURE";
    let of = |variables: &[_]| target(&taken(variables)).endpoint.to_string();
    assert_eq!(of(&[endpoint]), "https://c:4317/");
    assert_eq!(of(&[endpoint, (insecure, "false")]), "https://c:4317/");
    assert_eq!(of(&[endpoint, (insecure, "true")]), "http://c:4317/");
    let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "false");
    assert_eq!(
        of(&[endpoint, (insecure, "true"), of_traces]),
        "https://c:4317/"
    );
    let encrypted = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://c:4317");
    assert_eq!(of(&[encrypted, (insecure, "true")]), "https://c:4317/");
}

#[test]
fn an_endpoint_that_is_none_is_not_replaced_by_another() {
    for wrong in [
        "ftp://c",
        "http://",
        "not a url",
        "unix:///run/otel",
        "http://c:99999",
        "http://c:",
        "http://[::1]:99999/",
    ] {
        let settings = complained("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", wrong);
        assert_eq!(exported(&settings), [false, true, true], "{wrong}");
    }
    let settings = complained("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c/v1/traces");
    assert_eq!(exported(&settings), [true; 3]);
}

#[test]
fn headers_are_read_as_they_are_encoded_and_no_complaint_shows_one() {
    let name = "OTEL_EXPORTER_OTLP_HEADERS";
    let settings = taken(&[(name, "Authorization=Basic%20c2VjcmV0, x-scope=mail")]);
    let headers: Vec<_> = target(&settings).headers.clone();
    assert_eq!(headers[0].0, "authorization");
    assert_eq!(headers[0].1, "Basic c2VjcmV0");
    assert_eq!(headers[1].1, "mail");
    assert!(
        !format!("{settings:?}").contains("c2VjcmV0"),
        "{settings:?}"
    );
    for wrong in [
        "hunter2",
        "a b=hunter2",
        "=hunter2",
        "x-bin=hunter2",
        "a=hunter2%0a",
    ] {
        let (settings, complaints) = with(&[(name, &format!("{wrong},kept=1"))]);
        assert_eq!(target(&settings).headers.len(), 1, "{wrong}");
        assert_eq!(complaints.len(), 1);
        assert!(!complaints[0].contains("hunter2"), "{complaints:?}");
    }
    let of_logs = ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "only=this");
    let logs = taken(&[(name, "a=b"), of_logs]).logs.expect("exported");
    assert_eq!(logs.target.headers.len(), 1);
    assert_eq!(logs.target.headers[0].0, "only");
}

#[test]
fn times_are_in_milliseconds_and_none_is_endless() {
    let name = "OTEL_EXPORTER_OTLP_TIMEOUT";
    assert_eq!(target(&taken(&[])).timeout, Duration::from_secs(10));
    assert_eq!(
        target(&taken(&[(name, "250")])).timeout,
        Duration::from_millis(250)
    );
    assert_eq!(target(&taken(&[(name, "0")])).timeout, LONGEST);
    assert_eq!(
        target(&complained(name, "10s")).timeout,
        Duration::from_secs(10)
    );
    let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "7");
    assert_eq!(
        target(&taken(&[(name, "9"), of_traces])).timeout,
        Duration::from_millis(7)
    );
}

#[test]
fn compression_is_gzip_or_none() {
    let name = "OTEL_EXPORTER_OTLP_COMPRESSION";
    assert!(!target(&taken(&[])).gzip);
    assert!(target(&taken(&[(name, "gzip")])).gzip);
    assert!(!target(&taken(&[(name, "none")])).gzip);
    assert!(!target(&complained(name, "zstd")).gzip);
}

#[test]
fn files_of_tls_are_the_signal_s_or_those_for_all() {
    let all = [
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/c.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/k.pem"),
        ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/traces.pem"),
    ];
    let settings = taken(&all);
    assert_eq!(target(&settings).authorities, Some("/traces.pem".into()));
    let identity = target(&settings).identity.clone().expect("said");
    assert_eq!(identity.cert_file, PathBuf::from("/c.pem"));
    assert_eq!(identity.key_file, PathBuf::from("/k.pem"));
    let logs = settings.logs.expect("exported").target;
    assert_eq!(logs.authorities, Some("/ca.pem".into()));
    let half = complained("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/k.pem");
    assert_eq!(exported(&half), [false; 3]);
}

#[test]
fn samplers_have_the_standard_s_names() {
    let sampler = |settings: Settings| settings.traces.expect("exported").sampler;
    let of = |word, argument: &str| {
        let ratio = ("OTEL_TRACES_SAMPLER_ARG", argument);
        sampler(taken(&[("OTEL_TRACES_SAMPLER", word), ratio]))
    };
    let made = |follows_parent, share| Sampler {
        follows_parent,
        share,
    };
    assert_eq!(of("always_on", ""), made(false, Share::All));
    assert_eq!(of("always_off", ""), made(false, Share::Nothing));
    assert_eq!(of("traceidratio", "0.25"), made(false, Share::Ratio(0.25)));
    assert_eq!(of("traceidratio", ""), made(false, Share::Ratio(1.0)));
    assert_eq!(of("parentbased_always_on", ""), made(true, Share::All));
    assert_eq!(of("parentbased_always_off", ""), made(true, Share::Nothing));
    assert_eq!(
        of("parentbased_traceidratio", "0"),
        made(true, Share::Ratio(0.0))
    );
    assert_eq!(sampler(taken(&[])), Sampler::DEFAULT);
    assert_eq!(
        sampler(complained("OTEL_TRACES_SAMPLER", "xray")),
        Sampler::DEFAULT
    );
    let ratio = [
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
    ];
    let (settings, complaints) = with(&ratio);
    assert_eq!(sampler(settings), made(false, Share::Ratio(1.0)));
    assert_eq!(complaints.len(), 1);
}

#[test]
fn batches_of_spans_and_of_records_have_their_own_variables() {
    let millis = Duration::from_millis;
    let spans = |variables: &[_]| taken(variables).traces.expect("exported").batch;
    let records = |variables: &[_]| taken(variables).logs.expect("exported").batch;
    let default = Batch {
        delay: millis(5000),
        timeout: millis(30_000),
        queue: 2048,
        size: 512,
    };
    assert_eq!(spans(&[]), default);
    let default = Batch {
        delay: millis(1000),
        ..default
    };
    assert_eq!(records(&[]), default);
    let said = Batch {
        delay: millis(1),
        timeout: millis(2),
        queue: 30,
        size: 4,
    };
    assert_eq!(
        spans(&[
            ("OTEL_BSP_SCHEDULE_DELAY", "1"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "2"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "30"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4"),
        ]),
        said
    );
    assert_eq!(
        records(&[
            ("OTEL_BLRP_SCHEDULE_DELAY", "1"),
            ("OTEL_BLRP_EXPORT_TIMEOUT", "2"),
            ("OTEL_BLRP_MAX_QUEUE_SIZE", "30"),
            ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "4"),
        ]),
        said
    );
    assert_eq!(spans(&[("OTEL_BSP_MAX_QUEUE_SIZE", "30")]).size, 30);
    let larger = complained("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096");
    assert_eq!(larger.traces.expect("exported").batch.size, 2048);
    for zero in ["OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_SCHEDULE_DELAY"] {
        complained(zero, "0");
    }
}

#[test]
fn metrics_are_sent_as_often_and_in_the_form_that_is_asked_for() {
    let metrics = |settings: Settings| settings.metrics.expect("exported");
    let default = metrics(taken(&[]));
    assert_eq!(default.interval, Duration::from_mins(1));
    assert_eq!(default.timeout, Duration::from_secs(30));
    assert!(!default.deltas);
    let said = metrics(taken(&[
        ("OTEL_METRIC_EXPORT_INTERVAL", "500"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "400"),
    ]));
    assert_eq!(said.interval, Duration::from_millis(500));
    assert_eq!(said.timeout, Duration::from_millis(400));
    let preference = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    assert!(metrics(taken(&[(preference, "delta")])).deltas);
    assert!(metrics(taken(&[(preference, "lowmemory")])).deltas);
    assert!(!metrics(taken(&[(preference, "cumulative")])).deltas);
    assert!(!metrics(complained(preference, "both")).deltas);
    let histograms = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
    taken(&[(histograms, "explicit_bucket_histogram")]);
    complained(histograms, "base2_exponential_bucket_histogram");
}

#[test]
fn attributes_have_limits_for_all_and_for_each_kind() {
    let spans = |variables: &[_]| taken(variables).traces.expect("exported").attributes;
    let records = |variables: &[_]| taken(variables).logs.expect("exported").attributes;
    let limits = |count, length| AttributeLimits { count, length };
    assert_eq!(spans(&[]), limits(128, usize::MAX));
    let all = [
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "5"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "6"),
    ];
    assert_eq!(spans(&all), limits(5, 6));
    assert_eq!(records(&all), limits(5, 6));
    let own = [
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "7"),
        ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "8"),
        ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "9"),
        ("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "10"),
    ];
    let both = [all, [own[0], own[1]], [own[2], own[3]]].concat();
    assert_eq!(spans(&both), limits(7, 8));
    assert_eq!(records(&both), limits(9, 10));
}

#[test]
fn only_trace_context_is_read_of_callers() {
    let name = "OTEL_PROPAGATORS";
    assert!(taken(&[]).follows_callers);
    assert!(taken(&[(name, "baggage, tracecontext")]).follows_callers);
    assert!(!taken(&[(name, "none")]).follows_callers);
    assert!(complained(name, "b3,tracecontext").follows_callers);
}

#[test]
fn the_resource_is_what_is_said_and_the_service_s_name_goes_first() {
    let name = "OTEL_RESOURCE_ATTRIBUTES";
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let said = (name, "k8s.pod.name=gw-1, note=a%2Cb,service.name=x");
    let expected = [pair("k8s.pod.name", "gw-1"), pair("note", "a,b")];
    let settings = taken(&[said]);
    assert_eq!(settings.resource[..2], expected);
    assert_eq!(settings.resource[2], pair("service.name", "x"));
    let settings = taken(&[said, ("OTEL_SERVICE_NAME", "mail")]);
    assert_eq!(settings.resource[2], pair("service.name", "mail"));
    assert!(complained(name, "a=b,c").resource.is_empty());
}

#[test]
fn a_file_of_settings_is_not_read_and_that_is_said() {
    assert_eq!(
        exported(&complained("OTEL_CONFIG_FILE", "/otel.yaml")),
        [true; 3]
    );
}

#[test]
fn an_endpoint_with_what_may_be_secret_is_not_exported_to_and_none_of_it_is_shown() {
    let name = "OTEL_EXPORTER_OTLP_ENDPOINT";
    for secret in [
        "https://user:hunter2@host:4317",
        "https://hunter2@host:4317",
        "user:hunter2@host:4317",
        "https://host:4317?token=hunter2",
        "https://host:4317/?token=hunter2",
    ] {
        let (settings, complaints) = read(&[(name, secret)]);
        assert!(settings.is_idle(), "{secret}");
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(!complaints[0].contains("hunter2"), "{complaints:?}");
    }
    let (settings, _) = read(&[(name, "https://[::1]:4317/hunter2#hunter2")]);
    assert_eq!(target(&settings).shown(), "https://[::1]:4317");
    let (settings, _) = read(&[(name, "https://host")]);
    assert_eq!(target(&settings).shown(), "https://host");
}

#[test]
fn words_are_read_in_any_case() {
    for (name, value) in [
        ("OTEL_TRACES_EXPORTER", "OTLP"),
        ("OTEL_METRICS_EXPORTER", "Otlp,NONE"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "GRPC"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "None"),
        ("OTEL_TRACES_SAMPLER", "ALWAYS_ON"),
        (
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
            "EXPLICIT_BUCKET_HISTOGRAM",
        ),
    ] {
        assert_eq!(exported(&taken(&[(name, value)])), [true; 3], "{name}");
    }
    assert!(target(&taken(&[("OTEL_EXPORTER_OTLP_COMPRESSION", "GZip")])).gzip);
    let sampler = taken(&[("OTEL_TRACES_SAMPLER", "ParentBased_Always_Off")]).traces;
    assert_eq!(sampler.expect("exported").sampler.share, Share::Nothing);
    let preference = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    let deltas = taken(&[(preference, "Delta")]).metrics;
    assert!(deltas.expect("exported").deltas);
    assert!(taken(&[("OTEL_PROPAGATORS", "TraceContext")]).follows_callers);
}

#[test]
fn a_time_of_a_signal_that_is_none_leaves_the_one_for_all() {
    let of_all = ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000");
    let (settings, complaints) = with(&[of_all, ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "soon")]);
    assert_eq!(target(&settings).timeout, Duration::from_secs(2));
    assert_eq!(complaints.len(), 1, "{complaints:?}");
}
