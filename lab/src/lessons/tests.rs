//! Where lessons come from, and which one is meant.

use super::*;

fn room(dir: &Path) -> Classroom {
    let state = Some(dir.join("lessons.json"));
    Classroom { dir: None, lang: Lang::Ko, state, lab: None }
}

#[test]
fn every_file_of_the_folder_is_a_lesson() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("lessons");
    assert_eq!(of_dir(&dir).unwrap().len(), embedded().len());
    assert_eq!(embedded().len(), 24);
}

#[test]
fn a_lesson_is_found_by_number_and_by_id_in_the_language_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let room = room(dir.path());
    for wanted in ["7", "no-nat"] {
        let lesson = room.find(Some(wanted)).unwrap();
        assert_eq!(
            (lesson.number, lesson.lang, lesson.title.as_str()),
            (7, Lang::Ko, "NAT 없이 노드 간 통신")
        );
    }
    assert!(room.find(Some("70")).unwrap_err().text.contains("there are: 1 host-port, 2 localhost"));
    assert!(room.find(None).unwrap_err().text.contains("no lesson has been started"));
}

#[test]
fn a_directory_that_is_none_or_has_a_defect_is_refused_by_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let with = |own: &Path| Classroom { dir: Some(own.to_owned()), ..room(dir.path()) };
    assert!(with(&dir.path().join("nowhere")).shelf().unwrap_err().text.contains("nowhere: No such file"));
    std::fs::write(dir.path().join("13-more.en.md"), "---\nid: more\n").unwrap();
    let failure = with(dir.path()).shelf().unwrap_err();
    assert!(failure.text.contains("13-more.en.md:1: the first lines have no end"), "{failure}");
    assert_eq!(failure.code, exit::USAGE);
}
