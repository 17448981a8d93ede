//! Any bytes as a table's wire form: what decodes compiles or is refused; what compiles opens, upholds `checks.rs`, and
//! holds every frontend of the table.
#![no_main]

#[path = "../../tests/common/checks.rs"]
mod checks;

use libfuzzer_sys::fuzz_target;
use natlet_core::{FrontendKind, Program, compile, max_len, owned::OwnedTable, scratch_len};

fuzz_target!(|input: &[u8]| {
    let Ok(owned) = OwnedTable::<16, 48, 48, 16, 512>::from_wire(input) else { return };
    let table = owned.as_table();
    let mut scratch = vec![0; scratch_len(&table)];
    let mut out = vec![0; max_len(&table)];
    let Ok(len) = compile(&table, &mut scratch, &mut out) else { return };
    let program = Program::new_checked(&out[..len]).expect("what compiles opens");
    checks::check_program(&program);
    let frontends =
        table.services.iter().flat_map(|s| s.frontends.of(table.frontends).unwrap().iter().map(move |f| (s, f)));
    let mut count = 0;
    for (service, f) in frontends {
        let found = match f.kind {
            FrontendKind::NodePort => program.find_node_port(f.address, service.protocol, f.port),
            _ => program.find(f.address, service.protocol, f.port),
        };
        let found = found.expect("every frontend is found");
        assert_eq!(found.kind, f.kind);
        assert_eq!(program.name_of(&found.record).unwrap().name, table.name(service));
        count += 1;
    }
    assert_eq!(program.frontend_count(), count);
    // a table's form on the wire is the borrowed one's
    let mut wire = vec![0; 1 << 16];
    let again = OwnedTable::<16, 48, 48, 16, 512>::from_wire(table.to_wire(&mut wire).unwrap()).unwrap();
    assert_eq!(again, owned);
});
