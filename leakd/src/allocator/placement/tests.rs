//! Placement in hand-assembled prologues, one for each rule.

use proptest::prelude::*;

use super::*;

const ENTRY: u64 = 0x1000;
const ALL: Emulation = Emulation { long_nops: true };

fn walked(code: &[u8], function: Function, emulation: Emulation) -> walk::Place {
    walk(code, ENTRY, function, Arguments::default(), emulation).unwrap()
}

/// Where an emulated place was found.
fn emulated_at(code: &[u8], function: Function) -> u32 {
    let place = walked(code, function, Emulation::LEAST);
    assert_eq!(place.cost, Cost::Emulated, "{code:02x?}");
    assert_eq!(place.function, function, "{code:02x?}");
    place.skipped
}

/// The mnemonic of the single-stepped instruction, and where it is.
fn stepped_at(code: &[u8], function: Function) -> (u32, String) {
    let place = walked(code, function, Emulation::LEAST);
    let Cost::SingleStepped { instruction } = &place.cost else {
        panic!("{code:02x?}: {place:?}");
    };
    (place.skipped, instruction.split(':').next().unwrap().to_owned())
}

/// Check that the instructions which the kernel emulates are taken where they
/// come first, in each of their forms.
#[test]
fn emulated_instructions_are_taken_at_the_entry() {
    for code in [
        &[0x50, 0xc3][..],                     // push rax
        &[0x41, 0x54, 0xc3],                   // push r12
        &[0x90, 0xc3],                         // nop
        &[0xeb, 0x10, 0xc3],                   // jmp short
        &[0xe9, 0x00, 0x10, 0x00, 0x00],       // jmp
        &[0xe8, 0x00, 0x10, 0x00, 0x00],       // call
        &[0x74, 0x10, 0xc3],                   // je short
        &[0x0f, 0x84, 0x00, 0x10, 0x00, 0x00], // je
    ] {
        assert_eq!(emulated_at(code, Function::Malloc), 0, "{code:02x?}");
    }
}

/// Check that forms which look like emulated instructions and are not are
/// passed over.
#[test]
fn look_alikes_are_not_taken() {
    for (prologue, mnemonic) in [
        (&[0x66, 0x50][..], "push"),         // push ax
        (&[0xff, 0x35, 0, 0, 0, 0], "push"), // push [rip]
        (&[0x6a, 0x01], "push"),             // push 1
        (&[0xf3, 0x90], "pause"),
    ] {
        let code = [prologue, &[0xc3]].concat();
        assert_eq!(stepped_at(&code, Function::Malloc), (0, mnemonic.to_owned()), "{code:02x?}");
    }
    // ... and jecxz and loop, which branch, so that the way ends there.
    for code in [[0xe3, 0x10, 0xc3], [0xe2, 0x10, 0xc3]] {
        assert_eq!(stepped_at(&code, Function::Malloc).0, 0, "{code:02x?}");
    }
}

/// Check that free's `test; je` of glibc is probed at the jump, and that
/// endbr64 is stepped over.
#[test]
fn straight_code_is_skipped() {
    let test_je = [0x48, 0x85, 0xff, 0x74, 0x10, 0xc3];
    assert_eq!(emulated_at(&test_je, Function::Free), 3);
    assert_eq!(emulated_at(&test_je, Function::Malloc), 3);
    let endbr = [0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0xc3];
    assert_eq!(emulated_at(&endbr, Function::Malloc), 4);
}

/// Check that nothing behind a branch, a return or a system call is taken.
#[test]
fn the_way_ends_where_control_leaves() {
    for end in [&[0xc3][..], &[0xff, 0xe0], &[0xff, 0xd0], &[0x0f, 0x05], &[0xe3, 0x00]] {
        let code = [&[0x48, 0x89, 0xf8], end, &[0x50, 0xc3]].concat(); // mov rax, rdi
        assert_eq!(stepped_at(&code, Function::Malloc), (0, "mov".into()), "{code:02x?}");
    }
}

/// Check that the stack pointer must not have moved where the return is
/// probed, and may have where it is not.
#[test]
fn stack_pointer_matters_for_return_probes() {
    // sub rsp, 8; call
    let code = [0x48, 0x83, 0xec, 0x08, 0xe8, 0, 0x10, 0, 0, 0xc3];
    assert_eq!(stepped_at(&code, Function::Malloc), (0, "sub".into()));
    assert_eq!(emulated_at(&code, Function::Free), 4);
    // lea rsp, [rsp-8]; push rbx
    let code = [0x48, 0x8d, 0x64, 0x24, 0xf8, 0x53, 0xc3];
    assert_eq!(stepped_at(&code, Function::Realloc), (0, "lea".into()));
}

/// Check that an operand which has been overwritten keeps the probe back, and
/// one which the function does not have does not.
#[test]
fn operands_must_be_intact() {
    // xor edi, edi; push rbx
    let code = [0x31, 0xff, 0x53, 0xc3];
    assert_eq!(stepped_at(&code, Function::Malloc), (0, "xor".into()));
    // memalign's size is its second argument
    assert_eq!(emulated_at(&code, Function::Memalign), 2);
    // mov eax, esi; mul edx; push: reallocarray's count goes
    let code = [0x89, 0xf0, 0xf7, 0xe2, 0x53, 0xc3];
    assert_eq!(stepped_at(&code, Function::Reallocarray), (0, "mov".into()));
    assert_eq!(emulated_at(&code, Function::Realloc), 4);
    // A 32-bit move cuts the size off; it is no copy.
    let code = [0x89, 0xff, 0x53, 0xc3]; // mov edi, edi; push
    assert_eq!(stepped_at(&code, Function::Malloc), (0, "mov".into()));
    // A conditional move may have changed it.
    let code = [0x48, 0x0f, 0x44, 0xf8, 0x53, 0xc3]; // cmove rdi, rax; push
    assert_eq!(stepped_at(&code, Function::Free), (0, "cmove".into()));
}

/// Check that operands which have moved to another argument register are read
/// there.
#[test]
fn moved_operands_are_followed() {
    // mov rsi, rdi; mov rdi, [rax]; ja: mimalloc's malloc
    let code = [0x48, 0x89, 0xfe, 0x48, 0x8b, 0x38, 0x77, 0x10, 0xc3];
    let place = walked(&code, Function::Malloc, Emulation::LEAST);
    assert_eq!((place.skipped, &place.cost), (6, &Cost::Emulated));
    assert_eq!(place.function, Function::CustomAllocate);
    assert_eq!(place.arguments, Arguments { size: 2, count: 0, pointer: 0 });
    let place = walked(&code, Function::Free, Emulation::LEAST);
    assert_eq!(place.function, Function::CustomFree);
    assert_eq!(place.arguments, Arguments { size: 0, count: 0, pointer: 2 });
    // No cookie says this of realloc, whose block has gone.
    assert_eq!(stepped_at(&code, Function::Realloc), (0, "mov".into()));
    // mov rax, rdi; mov rdi, [rax]; ja: rax is no argument register
    let code = [0x48, 0x89, 0xf8, 0x48, 0x8b, 0x38, 0x77, 0x10, 0xc3];
    assert_eq!(stepped_at(&code, Function::Malloc), (0, "mov".into()));
    // xchg rdi, rsi changes both
    let code = [0x48, 0x87, 0xfe, 0x53, 0xc3];
    assert_eq!(stepped_at(&code, Function::Calloc), (0, "xchg".into()));
}

/// Check that custom functions' operands are looked after as they were
/// described.
#[test]
fn custom_operands_are_respected() {
    // xor edi, edi; push rbx
    let code = [0x31, 0xff, 0x53, 0xc3];
    let place = |size| {
        let arguments = Arguments { size, count: 0, pointer: 0 };
        walk(&code, ENTRY, Function::CustomAllocate, arguments, Emulation::LEAST).unwrap()
    };
    assert_eq!(place(1).skipped, 0);
    assert_eq!(place(2).skipped, 2);
    assert_eq!(place(2).arguments, Arguments { size: 2, count: 0, pointer: 0 });
}

/// Check that no place is taken that a branch from within the function leads
/// to or behind, while a branch back to the entry does no harm.
#[test]
fn branches_into_the_way_end_it() {
    // 0 inc rax; 3 test rdi, rdi; 6 jne 3
    let code = [0x48, 0xff, 0xc0, 0x48, 0x85, 0xff, 0x75, 0xfb, 0xc3];
    assert_eq!(stepped_at(&code, Function::Free), (0, "inc".into()));
    // 0 test; 3 je 6; 5 ret; 6 jmp 3
    let code = [0x48, 0x85, 0xff, 0x74, 0x01, 0xc3, 0xeb, 0xfb];
    assert_eq!(stepped_at(&code, Function::Free), (0, "test".into()));
    // the same into the middle of an instruction
    let code = [0x48, 0x85, 0xff, 0x74, 0x01, 0xc3, 0xeb, 0xf9];
    assert_eq!(stepped_at(&code, Function::Free), (0, "test".into()));
    // 0 test; 3 je 6; 5 ret; 6 jmp 0
    let code = [0x48, 0x85, 0xff, 0x74, 0x01, 0xc3, 0xeb, 0xf8];
    assert_eq!(emulated_at(&code, Function::Free), 3);
    // a call of the next instruction returns there, too
    let code = [0x48, 0x85, 0xff, 0x53, 0xe8, 0xfa, 0xff, 0xff, 0xff, 0xc3];
    assert_eq!(stepped_at(&code, Function::Free), (0, "test".into()));
}

/// Check that a place is sought no further than the entry's surroundings.
#[test]
fn the_way_has_a_limit() {
    let mut code = [0x48, 0x89, 0xf8].repeat(100);
    code.extend([0x53, 0xc3]);
    assert_eq!(stepped_at(&code, Function::Malloc), (0, "mov".into()));
}

/// Check that instructions on which the kernel allows no probe are passed
/// over or lead to an error.
#[test]
fn refused_instructions_are_not_probed() {
    // lock cmpxchg [rdi], rcx; je
    let code = [0xf0, 0x48, 0x0f, 0xb1, 0x0f, 0x74, 0x10, 0xc3];
    assert_eq!(emulated_at(&code, Function::Free), 5);
    // lock inc [rsi]; mov rax, rdi; ret
    let code = [0xf0, 0x48, 0xff, 0x06, 0x48, 0x89, 0xf8, 0xc3];
    assert_eq!(stepped_at(&code, Function::Malloc), (4, "mov".into()));
    for code in [
        &[0x3e, 0xff, 0xe0][..],   // notrack jmp rax
        &[0x0f, 0x0b],             // ud2
        &[0xcc],                   // int3
        &[0xf4],                   // hlt
        &[0x0f, 0x05],             // syscall
        &[0x66, 0xe9, 0, 0, 0, 0], // jmp with an operand-size prefix
    ] {
        let error = walk(code, ENTRY, Function::Free, Arguments::default(), ALL).unwrap_err();
        assert!(matches!(error, PlacementError::Refused(_)), "{code:02x?}: {error}");
    }
    for code in [&[][..], &[0x06], &[0x48]] {
        let error = walk(code, ENTRY, Function::Free, Arguments::default(), ALL).unwrap_err();
        assert!(matches!(error, PlacementError::NotCode), "{code:02x?}: {error}");
    }
}

/// Check that multi-byte NOPs count as emulated on the kernels that do so
/// only, and not where the kernel's call in place of one would overwrite
/// what the function has stored below the stack pointer.
#[test]
fn long_nops_depend_on_the_kernel() {
    let code = [0x0f, 0x1f, 0x44, 0x00, 0x00, 0x53, 0xc3];
    assert_eq!(emulated_at(&code, Function::Malloc), 5);
    assert_eq!(walked(&code, Function::Malloc, ALL).skipped, 0);
    // mov [rsp-8], rdi; nopl; push rbx
    let code = [0x48, 0x89, 0x7c, 0x24, 0xf8, 0x0f, 0x1f, 0x44, 0x00, 0x00, 0x53, 0xc3];
    assert_eq!(walked(&code, Function::Malloc, ALL).skipped, 10);
    for (release, long_nops) in [
        ("6.18.44-generic", true),
        ("6.16", true),
        ("6.16-rc1", true),
        ("7.0.1", true),
        ("6.15.9", false),
        ("5.10.0-30-amd64", false),
        ("", false),
        ("what?", false),
    ] {
        assert_eq!(Emulation::of_release(release).long_nops, long_nops, "{release}");
    }
}

/// Check that jumps to unknown places are told of, and jumps through slots of
/// the global offset table are not taken for such.
#[test]
fn indirect_jumps_are_noted() {
    let register = [0x53, 0xff, 0xe0];
    assert!(walked(&register, Function::Malloc, ALL).indirect_jumps);
    let slot = [0x53, 0xff, 0x25, 0, 0, 0, 0];
    assert!(!walked(&slot, Function::Malloc, ALL).indirect_jumps);
}

proptest! {
    /// Check that any bytes give a place at the start of an instruction of
    /// the straight way, or an error.
    #[test]
    fn any_bytes_are_survived(
        code in proptest::collection::vec(any::<u8>(), 0..300),
        entry in prop_oneof![Just(ENTRY), any::<u64>()],
        function in (1..=10_u8).prop_map(|number| Function::from_number(number).unwrap()),
        size in 0..=15_u8,
    ) {
        let arguments = Arguments { size, count: 0, pointer: 1 };
        if let Ok(place) = walk(&code, entry, function, arguments, ALL) {
            let mut decoder =
                iced_x86::Decoder::with_ip(64, &code, 0, iced_x86::DecoderOptions::NONE);
            let mut starts = Vec::new();
            while decoder.can_decode() {
                starts.push(decoder.decode().ip());
            }
            prop_assert!(starts.contains(&u64::from(place.skipped)));
            prop_assert!(place.skipped < 256);
        }
    }
}
