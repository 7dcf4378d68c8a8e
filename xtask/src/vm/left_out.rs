//! Tests that are not run in virtual machines, with the reason.
//!
//! The one place for them: what is here is printed with each run, and what is
//! not here runs.

/// A test that is left out.
#[derive(Clone, Copy, Debug)]
pub struct LeftOut {
    /// The kernels on which it is; none: all.
    pub kernels: &'static [&'static str],
    /// The test's name within its program.
    pub test: &'static str,
    /// Why it cannot run there.
    pub reason: &'static str,
}

/// They run no leakd and ask nothing of the kernel, so another one tells
/// nothing new; under the witness they are among the slowest.
const NO_LEAKD: &str = "no leakd in it, only the programs under test; run on the host";

const fn same_probes(test: &'static str) -> LeftOut {
    let reason = "probed as others are: run_command::exact_in_programs_of_every_kind and \
                  allocators::jemalloc are run";
    LeftOut { kernels: &[], test, reason }
}

const fn own_core(test: &'static str) -> LeftOut {
    let reason =
        "how the daemon goes about clocks, disks, limits, names and requests; run on the host";
    LeftOut { kernels: &[], test, reason }
}

const fn too_long(test: &'static str) -> LeftOut {
    let reason = "passes, but takes up to a minute; nginx, perl and sqlite3 are run";
    LeftOut { kernels: &[], test, reason }
}

const fn no_tracing(test: &'static str) -> LeftOut {
    let reason =
        "sockets, files and processes, which are the same on every kernel; run on the host";
    LeftOut { kernels: &[], test, reason }
}

const fn own_files(test: &'static str) -> LeftOut {
    let reason = "how leakd reads files and prints names, without the kernel; run on the host";
    LeftOut { kernels: &[], test, reason }
}

const fn own_manners(test: &'static str) -> LeftOut {
    let reason = "arguments, streams and exit statuses of leakctl's own; run on the host";
    LeftOut { kernels: &[], test, reason }
}

const fn by_valgrind(test: &'static str) -> LeftOut {
    let reason = "valgrind, emulated, takes minutes; compared with the sanitizer it is run";
    LeftOut { kernels: &[], test, reason }
}

const fn by_budget(test: &'static str) -> LeftOut {
    let reason =
        "traps cost fifty times as much, and no two the same: the budget decides otherwise";
    LeftOut { kernels: &[], test, reason }
}

const fn by_gdb(test: &'static str) -> LeftOut {
    let reason = "gdb stops the program at each call: emulated, that takes too long";
    LeftOut { kernels: &[], test, reason }
}

const fn same_source(test: &'static str) -> LeftOut {
    let reason = "the program of gdb::hard_cases, linked otherwise: only leakd's tables differ";
    LeftOut { kernels: &[], test, reason }
}

const fn long_tables(test: &'static str) -> LeftOut {
    let reason =
        "emulated, its unwind tables can take more than the second that leakd gives a file";
    LeftOut { kernels: &[], test, reason }
}

/// A condition of theirs is that leakd notices within a tenth of a second.
const SLOW: &str = "emulated, leakd notices a mapping later than the test's phases change";

const fn slow_to_notice(test: &'static str) -> LeftOut {
    LeftOut { kernels: &[], test, reason: SLOW }
}

const fn without_leakd(test: &'static str) -> LeftOut {
    LeftOut { kernels: &[], test, reason: NO_LEAKD }
}

/// All that are left out.
pub const LEFT_OUT: [LeftOut; 65] = [
    same_probes("allocators::mimalloc"),
    same_probes("allocators::tcmalloc"),
    same_probes("allocators::tcmalloc_operator_new"),
    same_probes("languages::c_without_debug_information"),
    same_probes("languages::musl_shared"),
    same_probes("languages::musl_static"),
    same_probes("languages::rust_box"),
    same_probes("languages::static_glibc"),
    same_probes("languages::static_pie_glibc"),
    own_core("daemon::faults::all_that_come_and_go"),
    own_core("daemon::faults::names_with_escape_sequences"),
    own_core("daemon::faults::status_waits_for_nothing"),
    own_core("daemon::faults::the_clock_jumps"),
    own_core("daemon::faults::the_disk_is_full"),
    own_files("bad_input::stripped_static_program"),
    own_files("doctor::files_without_a_table"),
    own_files("doctor::library_without_unwind_information"),
    own_files("bad_input::control_characters_in_names"),
    own_files("bad_input::corrupt_dynamic_program"),
    own_files("bad_input::corrupt_static_program"),
    own_files("bad_input::rubbish_mapped_as_code"),
    own_manners("bad_input::wrong_specifications"),
    no_tracing("daemon::clients::a_gigabyte"),
    no_tracing("daemon::clients::leakctl_asks_the_daemon"),
    no_tracing("daemon::clients::rubbish"),
    no_tracing("daemon::clients::slow_and_many_clients"),
    no_tracing("daemon::clients::strangers_are_kept_out"),
    no_tracing("daemon::faults::half_a_message"),
    no_tracing("daemon::lifecycle::a_second_daemon_is_refused"),
    no_tracing("daemon::lifecycle::sigterm_ends_cleanly"),
    no_tracing("daemon::lifecycle::wrong_configuration"),
    by_budget("daemon::patterns::leaks_and_no_others"),
    by_budget("daemon::traces::a_leak_is_found_by_itself"),
    by_budget("daemon::traces::counts_exactly"),
    by_budget("daemon::traces::the_budget_holds"),
    LeftOut {
        kernels: &["6.1", "6.12"],
        test: "left::by_exception",
        reason: "no sessions before 6.13: an operator new that throws is aborted (see README)",
    },
    own_core("limited::out_of_memory_is_foreseen"),
    too_long("bottom::cc1plus"),
    too_long("bottom::postgres"),
    too_long("bottom::python"),
    too_long("bottom::redis"),
    by_gdb("gdb::cpp_workload"),
    same_source("gdb::hard_cases_static"),
    same_source("gdb::hard_cases_static_pie"),
    LeftOut {
        kernels: &[],
        test: "languages::sixty_four_threads",
        reason: "emulated, 64 threads hold more at a time than one leaks; full::threads_at_the_limit is run",
    },
    long_tables("jit::node"),
    slow_to_notice("mappings::libraries_at_one_address"),
    slow_to_notice("mappings::mappings_in_motion"),
    own_manners("run_command::cannot_be_started"),
    own_manners("run_command::environment_is_not_touched"),
    own_manners("run_command::error_exitcode"),
    own_manners("run_command::options_of_the_command_are_its_own"),
    own_manners("run_command::status_is_passed_on"),
    own_manners("run_command::streams_belong_to_the_command"),
    own_manners("run_command::text_goes_to_stderr"),
    by_valgrind("scan::graphs::classes_are_those_of_valgrind"),
    long_tables("real_programs::python_bytes"),
    without_leakd("harness::programs_count_right"),
    without_leakd("harness::programs_leak_what_they_say"),
    without_leakd("harness::rust_program_leaks_what_it_says"),
    without_leakd("harness::short_program_counts_right"),
    LeftOut {
        kernels: &[],
        test: "real_programs::redis_values",
        reason: "a server under load: nginx_request_pools; jemalloc: allocators::jemalloc",
    },
    without_leakd("real_programs::nginx_truth"),
    without_leakd("real_programs::python_truth"),
    without_leakd("real_programs::redis_truth"),
];

/// Those that are left out on one kernel.
pub fn on(kernel: &str) -> impl Iterator<Item = &'static LeftOut> {
    LEFT_OUT.iter().filter(move |one| one.kernels.is_empty() || one.kernels.contains(&kernel))
}
