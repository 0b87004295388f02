use belljar_core::{BuildSpec, Input, InputName, Inputs, Limits, ObjectId, bounds};
use belljar_manifest::lock::{Image, Origin, Source};
use belljar_manifest::{Lock, Manifest, Wrong};
use belljar_wire::v1;

/// A `belljar.lock`, as the command line reads it: what it says is read again from what is written of it.
pub fn belljar_lock(bytes: &[u8]) {
    match Lock::parse(bytes) {
        Ok(lock) => {
            // What may be written has its bound, too, and escapes take more than what they stand for.
            if let Ok(text) = lock.text() {
                assert_eq!(Lock::parse(text.as_bytes()), Ok(lock));
            }
        }
        Err(wrong) => is_told(bytes, &wrong),
    }
}

/// A `belljar.toml` beside a `belljar.lock` with the image `rust`: whatever is accepted a daemon reads as it was meant,
/// and so does whoever reads its canonical form.
pub fn manifest(bytes: &[u8]) {
    let (object, name) = (ObjectId::of(b""), InputName::new("rust"));
    let input = Input {
        tree: object,
        derivation: Some(object),
    };
    let source = Source {
        origin: Origin::File("rust.tar".to_owned()),
        object,
    };
    let mut lock = Lock::default();
    lock.set(name.expect("a name"), Image { input, source });
    let manifest = match Manifest::parse(bytes, &lock) {
        Ok(manifest) => manifest,
        Err(wrong) => return is_told(bytes, &wrong),
    };
    let deps = manifest.deps().iter();
    let inputs = deps.map(|file| (file.input().expect("a name"), input));
    let inputs = Inputs::new(inputs.collect()).expect("few");
    let spec = manifest.spec(object, inputs, &Limits::DEFAULT);
    let spec = spec.expect("what is accepted is a specification");
    assert_eq!(
        BuildSpec::try_from(v1::BuildSpec::from(&spec)).as_ref(),
        Ok(&spec)
    );
    let canonical = spec.canonical().expect("it is not too large");
    assert_eq!(BuildSpec::from_canonical(&canonical), Ok(spec));
}

/// A refusal names a place in the file, and is short.
fn is_told(bytes: &[u8], wrong: &Wrong) {
    let lines = bytes.split(|byte| *byte == b'\n').count();
    assert!((1..=lines).contains(&wrong.place.line) && wrong.place.column > 0);
    let most = bounds::REASON_BYTES + '…'.len_utf8();
    assert!(wrong.invalid.field.len() <= most && wrong.invalid.reason.len() <= most);
}
