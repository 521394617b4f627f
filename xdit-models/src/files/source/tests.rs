use super::*;
use crate::files::model_index::ModelIndex;

#[test]
fn folder_reads_and_lists() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("vae")).unwrap();
    std::fs::write(folder.path().join("vae/config.json"), b"{}").unwrap();
    std::fs::write(folder.path().join("model_index.json"), b"{}").unwrap();
    let source = ModelSource::folder(folder.path()).unwrap();
    assert_eq!(
        source.list().unwrap(),
        ["model_index.json", "vae/config.json"]
    );
    assert_eq!(&*source.read("vae/config.json", 2).unwrap(), b"{}");
    assert!(
        source
            .read("vae/config.json", 1)
            .unwrap_err()
            .to_string()
            .contains("larger than 1 B")
    );
    assert!(matches!(
        source.read("vae", 9),
        Err(Error::MissingFile { .. })
    ));
    assert!(matches!(source.read("a\0b", 9), Err(Error::BadFile { .. })));
    for path in ["../x", "/etc/passwd", "vae/../../x", ""] {
        assert!(
            matches!(source.read(path, 9), Err(Error::BadFile { .. })),
            "{path}"
        );
        assert!(!source.exists(path));
    }
}

#[cfg(unix)]
#[test]
fn folders_that_may_not_be_entered_are_told_from_missing_files() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::write(closed.join("a.json"), b"{}").unwrap();
    let enter = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(&closed, enter(0o000)).unwrap();
    let source = ModelSource::folder(&closed).unwrap();
    let read = source.read("a.json", 9);
    // Root may enter every folder.
    assert!(matches!(read, Ok(_) | Err(Error::Io { .. })), "{read:?}");
    std::fs::set_permissions(&closed, enter(0o755)).unwrap();
}

#[test]
fn without_t5_its_files_are_not_there() {
    let index = |class: &str| {
        let pair = r#"["transformers", "T5EncoderModel"]"#;
        format!(r#"{{"_class_name": "{class}", "text_encoder_3": {pair}}}"#).into_bytes()
    };
    let source = |class| {
        ModelSource::memory([
            (crate::files::config::MODEL_INDEX, index(class)),
            ("text_encoder_3/config.json", b"{}".to_vec()),
            ("text_encoder/config.json", b"{}".to_vec()),
        ])
    };
    let whole = source("StableDiffusion3Pipeline");
    assert!(whole.exists("text_encoder_3/config.json"));
    let without = whole.without_t5().unwrap();
    let t5 = "text_encoder_3/config.json";
    assert!(!without.exists(t5) && without.exists("text_encoder/config.json"));
    assert!(matches!(
        without.read(t5, 9),
        Err(Error::MissingFile { .. })
    ));
    assert!(matches!(without.open(t5), Err(Error::MissingFile { .. })));
    assert_eq!(without.list().unwrap().len(), 2);
    let index = ModelIndex::read(&without).unwrap();
    assert!(index.components.is_empty(), "{index:?}");
    for class in ["FluxPipeline", "HunyuanDiTPipeline"] {
        let refused = source(class).without_t5().unwrap_err().to_string();
        assert!(
            refused.starts_with("`no_t5`") && refused.contains(class),
            "{refused}"
        );
    }
}

#[test]
fn missing_folders_are_not_found() {
    let error = ModelSource::folder("/no/such/folder").unwrap_err();
    assert_eq!(
        error.to_string(),
        "model not found: /no/such/folder: no such folder"
    );
}

#[test]
fn embedded_files_are_borrowed() {
    static FILES: &[(&str, &[u8])] = &[("a.json", b"[]")];
    let source = ModelSource::embedded("demo", FILES);
    assert!(matches!(
        source.read("a.json", 9).unwrap(),
        Cow::Borrowed(b"[]")
    ));
    let error = source.config("a.json").unwrap_err().to_string();
    assert_eq!(error, "demo:a.json: expected a JSON object, found a list");
    assert!(source.path().is_none());
}
