//! Lists are read item by item, before it is known whether they are lists and whole.

use super::*;

const ITEM: &str =
    "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}}";
const FAULTY: &str =
    "{apiVersion: v1, kind: Service, metadata: {name: b}, spec: {clusterIP: 10.96.0.2, ports: [{port: 0}]}}";
const BARE: &str = "{metadata: {name: c}, spec: {clusterIP: 10.96.0.3, ports: [{port: 80}]}}";

#[test]
fn a_list_may_say_last_that_it_is_one() {
    let first = format!("apiVersion: v1\nkind: List\nitems:\n- {ITEM}\n");
    let last = format!("items:\n- {ITEM}\nkind: List\napiVersion: v1\n");
    let (table, report) = load(&first);
    assert_eq!((table.services().len(), report.objects.get("Service")), (1, Some(&1)));
    assert_eq!(load(&last).0, table);
}

#[test]
fn what_turns_out_to_be_no_list_has_no_items() {
    let text = format!(
        "apiVersion: example.com/v1\nitems: [{ITEM}, {FAULTY}, {{apiVersion: v1, kind: Pod}}]\nkind: Shelf\n---\n{}",
        ITEM.replace("name: a", "name: z")
    );
    let (table, report) = load(&text);
    assert_eq!(table.services()[0].name, "default/z");
    let counts: Vec<_> = report.skipped.iter().map(|(kind, n)| (kind.as_str(), *n)).collect();
    assert_eq!((counts, report.objects.get("Service")), (vec![("Shelf", 1)], Some(&1)));

    let without_kind = problems(&format!("apiVersion: v1\nitems: [{ITEM}, {FAULTY}]\n"));
    assert_eq!(without_kind, [("a document without apiVersion and kind is no Kubernetes object".to_owned(), 1, 1)]);
}

#[test]
fn items_of_a_typed_list_need_not_say_what_they_are() {
    for text in [
        format!("apiVersion: v1\nkind: ServiceList\nitems:\n- {BARE}\n- {ITEM}\n"),
        format!("items:\n- {BARE}\n- {ITEM}\napiVersion: v1\nkind: ServiceList\n"),
        format!("items:\n- {ITEM}\n- {BARE}\napiVersion: v1\nkind: ServiceList\n"),
    ] {
        let names: Vec<String> = load(&text).0.services().into_iter().map(|s| s.name).collect();
        assert_eq!(names, ["default/a", "default/c"], "{text}");
    }
}

#[test]
fn items_of_a_list_that_is_cut_off_do_not_count() {
    let found = problems(&format!("apiVersion: v1\nkind: List\nitems:\n- {FAULTY}\n- [\n"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].0.starts_with("YAML syntax: "), "{found:?}");
    // JSON is given up only at its end
    let found =
        problems("{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[{\"apiVersion\":\"v1\",\"kind\":\"Service\"}");
    assert_eq!(found, [("JSON syntax: EOF while parsing a list".to_owned(), 1, 78)]);
}

#[test]
fn a_file_that_is_given_up_and_read_again_counts_once() {
    // flow YAML that is JSON until its last value
    let text = "{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[{\"apiVersion\":\"v1\",\"kind\":\"Service\",\
                \"metadata\":{\"name\":\"a\"},\"spec\":{\"clusterIP\":\"10.96.0.1\",\"ports\":[{\"port\":80}]}}], \"x\": yes}";
    let (table, report) = load(text);
    assert_eq!((table.services().len(), report.objects.get("Service")), (1, Some(&1)));
}

#[test]
fn faults_of_the_text_come_before_those_of_its_objects() {
    let text = format!("apiVersion: v1\nkind: List\nitems:\n- {FAULTY}\n- {ITEM}\nmetadata: 1\nmetadata: 2\n");
    let found: Vec<String> = problems(&text).into_iter().map(|(title, ..)| title).collect();
    assert_eq!(found, ["the key metadata is given twice", "port 0 is out of range"]);
}

#[test]
fn lists_lie_in_lists() {
    let text = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {{apiVersion: v1, kind: ServiceList, items: [{BARE}]}}\n- {ITEM}\n"
    );
    assert_eq!(load(&text).0.services().len(), 2);
}
