//! Every format, whole and broken, from files made here.
#![allow(clippy::unwrap_used)] // clippy's exemption covers test functions, not their helpers

use std::{
    fs::{self, File},
    io::Cursor,
    path::{Path, PathBuf},
};

use image::{ImageFormat, RgbImage};
use lana_data::{DataSpec, Dataset, DatasetOptions, Error};
use tempfile::TempDir;

fn open(spec: &str) -> Result<Dataset, Error> {
    open_with(spec, DatasetOptions::default())
}

fn open_with(spec: &str, options: DatasetOptions) -> Result<Dataset, Error> {
    Dataset::open(&spec.parse::<DataSpec>()?, &options)
}

/// A smooth image in which `shade` can be recognised after compression.
fn picture(shade: u8, width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_pixel(width, height, image::Rgb([shade, 255 - shade, 90]))
        .write_to(&mut bytes, format)
        .unwrap();
    bytes.into_inner()
}

fn record(label: u8, shade: u8) -> Vec<u8> {
    let mut record = vec![label];
    for plane in 0..3 {
        record.extend([shade + plane; 1024]);
    }
    record
}

fn write_tar(path: &Path, files: &[(&str, &[u8])]) {
    let mut tar = tar::Builder::new(File::create(path).unwrap());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap().sync_all().unwrap();
}

/// The message of the error, after checking that it names `file` and holds `cure`.
fn assert_error(spec: &str, options: DatasetOptions, file: &str, cure: &str) {
    let message = match open_with(spec, options) {
        Ok(set) => panic!("{spec} opened: {set:?}"),
        Err(error) => error.to_string(),
    };
    assert!(message.contains(file), "{spec}: `{file}` is not named in: {message}");
    assert!(message.contains(cure), "{spec}: `{cure}` is not in: {message}");
}

#[test]
fn cifar_reads_a_file_or_a_folder_in_order() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("b.bin"), record(3, 200)).unwrap();
    fs::write(folder.path().join("a.bin"), [record(9, 10), record(0, 20)].concat()).unwrap();
    fs::write(folder.path().join("readme.html"), "no image").unwrap();

    for cache_bytes in [0, 1 << 20] {
        let options = DatasetOptions { cache_bytes, ..Default::default() };
        let set = open_with(&format!("cifar10:{}", folder.path().display()), options).unwrap();
        assert_eq!(set.labels(), [9, 0, 3]);
        assert_eq!(set.classes(), 10);
        assert_eq!(set.get(0).unwrap().picture.width, 32);
        assert_eq!(set.class_names().unwrap()[9], "truck");
        assert_eq!(set.is_cached(), cache_bytes > 0);
        assert_eq!(set.get(1).unwrap().picture.pixels[..6], [20, 21, 22, 20, 21, 22]);
        assert_eq!(set.get(2).unwrap().picture.pixels[3069..], [200, 201, 202]);
        assert!(set.name(2).contains("b.bin"));
        assert!(set.get(3).unwrap_err().to_string().contains("there is no image 3"));
    }
    let one = open(&format!("cifar10:{}", folder.path().join("b.bin").display())).unwrap();
    assert_eq!(one.labels(), [3]);
}

#[test]
fn folders_number_classes_by_name() {
    let folder = TempDir::new().unwrap();
    for (name, shade, format) in [
        ("zebra/1.PNG", 200, ImageFormat::Png),
        ("ant/2.webp", 20, ImageFormat::WebP),
        ("ant/1.JPEG", 10, ImageFormat::Jpeg),
        // Named wrongly, as one of ImageNet's is.
        ("bee/1.jpg", 100, ImageFormat::Png),
    ] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, picture(shade, 40, 24, format)).unwrap();
    }
    fs::write(folder.path().join("ant/notes.txt"), "x").unwrap();
    fs::create_dir(folder.path().join(".cache")).unwrap();

    let set = open(&format!("imagefolder:{}", folder.path().display())).unwrap();
    assert_eq!(set.class_names().unwrap(), ["ant", "bee", "zebra"]);
    assert_eq!(set.labels(), [0, 0, 1, 2]);

    for (index, shade) in [10u8, 20, 100, 200].into_iter().enumerate() {
        let sample = set.get(index).unwrap();
        assert_eq!((sample.picture.width, sample.picture.height), (40, 24));
        assert!(
            sample.picture.pixels[0].abs_diff(shade) < 4
                && sample.picture.pixels[1].abs_diff(255 - shade) < 4
        );
    }
}

#[test]
fn tars_are_read_by_name_pattern_or_folder() {
    let folder = TempDir::new().unwrap();
    let images: Vec<_> = (0..4).map(|i| picture(i * 60, 16, 16, ImageFormat::Jpeg)).collect();
    let png = picture(250, 16, 16, ImageFormat::Png);
    write_tar(
        &folder.path().join("s-00.tar"),
        &[("00000.jpg", &images[0]), ("00000.cls", b"4"), ("00001.jpg", &images[1]), ("00001.cls", b" 2\n")],
    );
    write_tar(
        &folder.path().join("s-01.tar"),
        // Sorted by kind instead of by name, a file that is no business of ours, a label without an image.
        &[
            ("d/00002.cls", b"0"),
            ("d/00003.cls", b"1"),
            ("d/00009.cls", b"1"),
            ("d/00002.json", b"{}"),
            ("d/._00002.jpg", b"resource fork"),
            ("d/00002.JPEG", &images[2]),
            ("d/00003.png", &png),
        ],
    );
    let root = folder.path().display();
    for spec in [format!("webdataset:{root}/s-{{00..01}}.tar"), format!("webdataset:{root}")] {
        for cache_bytes in [0, 1 << 20] {
            let set = open_with(&spec, DatasetOptions { cache_bytes, ..Default::default() }).unwrap();
            assert_eq!(set.labels(), [4, 2, 0, 1]);
            assert_eq!((set.classes(), set.get(0).unwrap().picture.width), (5, 16));
            for (index, shade) in [0u8, 60, 120, 250].into_iter().enumerate() {
                assert!(set.get(index).unwrap().picture.pixels[0].abs_diff(shade) < 4, "{index}");
            }
            assert!(set.name(3).contains("s-01.tar: d/00003.png"));
        }
    }
    assert_eq!(open(&format!("webdataset:{root}/s-00.tar")).unwrap().len(), 2);
}

#[test]
fn few_broken_images_are_skipped_and_listed() {
    let folder = TempDir::new().unwrap();
    let class = folder.path().join("only");
    fs::create_dir(&class).unwrap();
    for i in 0..200u8 {
        fs::write(class.join(format!("{i:03}.png")), picture(i, 8, 8, ImageFormat::Png)).unwrap();
    }
    let spec = format!("imagefolder:{}", folder.path().display());
    fs::write(class.join("000.png"), b"").unwrap();
    fs::write(class.join("150.png"), b"<html>not found</html>").unwrap();
    let set = open(&spec).unwrap();
    assert_eq!(set.len(), 198);
    assert_eq!(set.skipped().len(), 2);
    assert!(set.skipped()[0].item.ends_with("000.png") && set.skipped()[0].reason.contains("empty"));
    // The others keep their order, their pixels and their names.
    assert_eq!(set.get(0).unwrap().picture.pixels[0], 1);
    assert_eq!(set.get(149).unwrap().picture.pixels[0], 151);
    assert!(set.name(149).ends_with("151.png"));

    // Decoding on demand, the broken one is an error that names it.
    let lazy = open_with(&spec, DatasetOptions { cache_bytes: 0, ..Default::default() }).unwrap();
    assert!(lazy.get(150).unwrap_err().to_string().contains("150.png"));

    let whole = picture(7, 64, 64, ImageFormat::Jpeg);
    fs::write(class.join("199.png"), &whole[..whole.len() / 2]).unwrap();
    assert_error(&spec, DatasetOptions::default(), "000.png", "3 of 200");
}

#[test]
fn bad_input_is_named_with_its_cure() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    let text = |name: &str| path(name).display().to_string();
    let jpg = picture(9, 16, 16, ImageFormat::Jpeg);
    let none = DatasetOptions::default;

    fs::create_dir(path("empty")).unwrap();
    fs::create_dir_all(path("flat")).unwrap();
    fs::write(path("flat/1.jpg"), &jpg).unwrap();
    fs::create_dir_all(path("hollow/ant")).unwrap();
    for class in ["a", "b", "c"] {
        fs::create_dir_all(path(&format!("three/{class}"))).unwrap();
        fs::write(path(&format!("three/{class}/1.jpg")), &jpg).unwrap();
    }
    fs::write(path("cut.bin"), &record(1, 1)[..3000]).unwrap();
    fs::write(path("nothing.bin"), b"").unwrap();
    fs::write(path("label.bin"), [record(1, 1), record(10, 1)].concat()).unwrap();

    for scheme in ["cifar10", "imagefolder", "webdataset"] {
        assert_error(&format!("{scheme}:{}", text("gone")), none(), "gone", "check the spelling");
        assert_error(&format!("{scheme}:{}", text("empty")), none(), "empty", "holds no");
    }
    assert_error(&format!("cifar10:{}", text("cut.bin")), none(), "cut.bin", "fetch cifar-10-binary");
    assert_error(&format!("cifar10:{}", text("nothing.bin")), none(), "nothing.bin", "*.bin");
    assert_error(&format!("cifar10:{}", text("label.bin")), none(), "label.bin: image 1", "label 10");
    assert_error(&format!("imagefolder:{}", text("flat")), none(), "flat", "CLASS/IMAGE.jpg");
    assert_error(&format!("imagefolder:{}", text("cut.bin")), none(), "cut.bin", "one folder per class");
    assert_error(&format!("imagefolder:{}", text("hollow")), none(), "ant", "remove the folder");
    let two = DatasetOptions { classes: Some(2), ..none() };
    assert_error(&format!("imagefolder:{}", text("three")), two.clone(), "three", "3 class folders");

    let tar = |name: &str, files: &[(&str, &[u8])]| {
        write_tar(&path(name), files);
        format!("webdataset:{}", text(name))
    };
    let spec = tar("nolabel.tar", &[("1.jpg", &jpg), ("2.jpg", &jpg), ("2.cls", b"0")]);
    assert_error(&spec, none(), "nolabel.tar: 1.jpg", "1.cls");
    let spec = tar("word.tar", &[("1.jpg", &jpg), ("1.cls", b"cat")]);
    assert_error(&spec, none(), "word.tar: 1.cls holds `cat`", "integer");
    let spec = tar("minus.tar", &[("1.jpg", &jpg), ("1.cls", b"-1")]);
    assert_error(&spec, none(), "minus.tar", "counts from 0");
    let spec = tar("range.tar", &[("1.jpg", &jpg), ("1.cls", b"2")]);
    assert_error(&spec, two, "range.tar: 1.jpg", "out of range for 2");
    let spec = tar("twice.tar", &[("1.jpg", &jpg), ("1.png", &jpg), ("1.cls", b"2")]);
    assert_error(&spec, none(), "twice.tar", "a name of its own");
    let spec = tar("texts.tar", &[("1.txt", b"x")]);
    assert_error(&spec, none(), "texts.tar", "00000.cls");
    fs::write(path("empty.tar"), b"").unwrap();
    assert_error(&format!("webdataset:{}", text("empty.tar")), none(), "empty.tar", "write it again");
    fs::write(path("page.tar"), "<html>".repeat(500)).unwrap();
    assert_error(&format!("webdataset:{}", text("page.tar")), none(), "page.tar", "fetch it again");
    assert_error(&format!("webdataset:{}", text("a-{1..}.tar")), none(), "a-{1..}.tar", "{0000..0004}");

    // Cut anywhere before its end mark, a tar is an error, between two samples too.
    tar("whole.tar", &[("1.cls", b"0"), ("1.jpg", &jpg), ("2.cls", b"1"), ("2.jpg", &jpg)]);
    let whole = fs::read(path("whole.tar")).unwrap();
    for cut in (1..whole.len() - 1024).step_by(97).chain((512..whole.len() - 1024).step_by(512)) {
        fs::write(path("part.tar"), &whole[..cut]).unwrap();
        assert_error(&format!("webdataset:{}", text("part.tar")), none(), "part.tar", "again");
    }
    // A file that shrinks after it was indexed.
    let lazy = DatasetOptions { cache_bytes: 0, ..none() };
    let set = open_with(&format!("webdataset:{}", text("whole.tar")), lazy).unwrap();
    fs::OpenOptions::new().write(true).open(path("whole.tar")).unwrap().set_len(1000).unwrap();
    assert!(set.get(1).unwrap_err().to_string().contains("whole.tar"));
}

#[test]
fn settings_are_checked() {
    for (options, part) in [
        (DatasetOptions { size: Some(0), ..Default::default() }, "1 to 4096"),
        (DatasetOptions { classes: Some(0), ..Default::default() }, "at least one"),
    ] {
        assert_error("generated:shapes?images=10", options, "", part);
    }
}

#[test]
fn files_of_classes_number_folders() {
    let folder = TempDir::new().unwrap();
    for name in ["images/n02/1.png", "images/n09/1.png"] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, picture(9, 8, 8, ImageFormat::Png)).unwrap();
    }
    let spec = |index: &str, text: &str| {
        let path = folder.path().join(index);
        fs::write(&path, text).unwrap();
        format!("imagefolder:{}?classes={}", folder.path().join("images").display(), path.display())
    };
    for (index, text) in [
        ("a.json", r#"{"0": ["n09", "wolf"], "1": ["n05", "fox"], "3": ["n02", "cat"]}"#),
        ("b.json", r#"{"n02": 3, "n09": 0, "n05": 1}"#),
        ("c.txt", "n09 wolf\nn05 fox\nn07\nn02\n"),
    ] {
        let set = open(&spec(index, text)).unwrap();
        assert_eq!((set.labels(), set.classes()), (&[3, 0][..], 4), "{index}");
    }
    let none = DatasetOptions::default;
    assert_error(&spec("d.txt", "n09\nn05"), none(), "d.txt", "n02 is not in it");
    assert_error(&spec("e.json", "{\"n02\": \"x\"}"), none(), "e.json", "line by line");
    assert_error(&spec("f.json", "{"), none(), "f.json", "line by line");
    assert_error(&spec("g.json", "{\"a\": 1, \"b\": 1}"), none(), "g.json", "class 1 is both");
}

/// More files than a process is usually allowed to keep open.
#[cfg(target_os = "linux")]
#[test]
fn sets_of_many_tars_keep_few_open() {
    let folder = TempDir::new().unwrap();
    for number in 0..200u8 {
        let image = picture(number, 4, 4, ImageFormat::Png);
        write_tar(&folder.path().join(format!("{number:03}.tar")), &[("a.png", &image), ("a.cls", b"1")]);
    }
    let open_files = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open_files();
    // Not kept in memory: what is read below is read from the tars.
    let options = DatasetOptions { cache_bytes: 0, ..DatasetOptions::default() };
    let set = open_with(&format!("webdataset:{}", folder.path().display()), options).unwrap();
    assert_eq!(set.len(), 200);
    assert!((0..200).all(|index| set.get(index).is_ok_and(|sample| sample.label == 1)));
    assert!(open_files() < before + 100, "{} files are open", open_files());
}

#[test]
fn labels_in_tars_may_be_json() {
    let folder = TempDir::new().unwrap();
    let png = picture(9, 8, 8, ImageFormat::Png);
    let path = folder.path().join("a.tar");
    write_tar(
        &path,
        &[
            ("1.json", br#"{"label": 2, "caption": "a cat"}"#),
            ("1.png", &png),
            ("2.png", &png),
            ("2.json", br#"{"cls": 1, "label": "dog"}"#),
            ("3.png", &png),
            ("3.json", br#"{"label": 7}"#),
            ("3.cls", b"0"),
        ],
    );
    assert_eq!(open(&format!("webdataset:{}", path.display())).unwrap().labels(), [2, 1, 0]);
    let wrong: [(&[u8], &str); 4] = [
        (b"[1]", "neither `label` nor `cls`"),
        (br#"{"label": "cat"}"#, "the `label` \"cat\""),
        (br#"{"cls": -1}"#, "the `cls` -1"),
        (br#"{"label": 1"#, "is no JSON"),
    ];
    for (note, reason) in wrong {
        write_tar(&path, &[("1.png", &png), ("1.json", note)]);
        let spec = format!("webdataset:{}", path.display());
        assert_error(&spec, DatasetOptions::default(), "a.tar: 1.json", reason);
    }
}

/// Bytes of an image, or none, and its label.
type Row<'a> = (Option<&'a [u8]>, i64);

/// A file as `datasets` writes it, with row groups of the given rows.
fn write_parquet(path: &Path, groups: &[&[Row]], notes: Option<&str>) {
    use std::sync::Arc;

    use parquet::{
        data_type::{ByteArray, ByteArrayType, Int64Type},
        file::{
            metadata::KeyValue,
            properties::WriterProperties,
            writer::{SerializedFileWriter, SerializedRowGroupWriter},
        },
        schema::parser::parse_message_type,
    };

    let schema = "message schema {
        optional group image { optional binary bytes; optional binary path (UTF8); }
        optional int64 label;
    }";
    let notes = notes.map(|text| vec![KeyValue::new("huggingface".into(), text.to_owned())]);
    // Pages of one or two images, so that some are passed over.
    let properties = WriterProperties::builder()
        .set_key_value_metadata(notes)
        .set_data_page_row_count_limit(2)
        .set_write_batch_size(1)
        .set_dictionary_enabled(false)
        .set_compression(parquet::basic::Compression::SNAPPY)
        .build();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer =
        SerializedFileWriter::new(File::create(path).unwrap(), schema, Arc::new(properties)).unwrap();
    let bytes = |group: &mut SerializedRowGroupWriter<File>, values: Vec<Option<Vec<u8>>>| {
        let mut column = group.next_column().unwrap().unwrap();
        let levels: Vec<i16> = values.iter().map(|v| if v.is_some() { 2 } else { 1 }).collect();
        let values: Vec<ByteArray> = values.into_iter().flatten().map(ByteArray::from).collect();
        column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
    };
    for rows in groups {
        let mut group = writer.next_row_group().unwrap();
        bytes(&mut group, rows.iter().map(|(image, _)| image.map(<[u8]>::to_vec)).collect());
        bytes(&mut group, rows.iter().map(|_| Some(b"x.png".to_vec())).collect());
        let mut column = group.next_column().unwrap().unwrap();
        let labels: Vec<i64> = rows.iter().map(|&(_, label)| label).collect();
        column.typed::<Int64Type>().write_batch(&labels, Some(&vec![1; labels.len()]), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn parquet_is_read_row_by_row() {
    let folder = TempDir::new().unwrap();
    let images: Vec<_> = (0..9).map(|i| picture(i * 20, 30, 20, ImageFormat::Png)).collect();
    let row = |i: usize| (Some(images[i].as_slice()), i as i64 % 3);
    let notes = r#"{"info": {"features": {"label": {"names": ["ant", "bee", "cat", "dog"], "_type": "ClassLabel"}}}}"#;
    let first: Vec<_> = (0..5).map(row).collect();
    write_parquet(&folder.path().join("train-0.parquet"), &[&first, &[row(5)]], Some(notes));
    write_parquet(&folder.path().join("train-1.parquet"), &[&[row(6), row(7), row(8)]], Some(notes));
    let root = folder.path().display();
    for spec in [format!("parquet:{root}/train-{{0..1}}.parquet"), format!("parquet:{root}")] {
        for cache_bytes in [0, 1 << 20] {
            let set = open_with(&spec, DatasetOptions { cache_bytes, ..Default::default() }).unwrap();
            assert_eq!(set.labels(), [0, 1, 2, 0, 1, 2, 0, 1, 2]);
            assert_eq!((set.classes(), set.class_names().unwrap()[3].as_str()), (4, "dog"));
            // From several threads, in an order of their own.
            std::thread::scope(|scope| {
                for turn in 0..4 {
                    let set = &set;
                    scope.spawn(move || {
                        for i in 0..9 {
                            let index = (i * 4 + turn) % 9;
                            assert_eq!(set.get(index).unwrap().picture.pixels[0], index as u8 * 20);
                        }
                    });
                }
            });
            assert!(set.name(7).contains("train-1.parquet: row 1 of row group 0"));
        }
    }

    let none = DatasetOptions::default;
    let path = folder.path().join("bad.parquet");
    write_parquet(&path, &[&[row(0), (Some(&images[1]), -1)]], None);
    assert_error(&format!("parquet:{}", path.display()), none(), "bad.parquet: image 1", "without labels");
    write_parquet(&path, &[&[row(0), (None, 0)]], None);
    assert_error(&format!("parquet:{}", path.display()), none(), "row 1", "fetch the data again");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 10]).unwrap();
    assert_error(&format!("parquet:{}", path.display()), none(), "bad.parquet", "fetch it again");
}
