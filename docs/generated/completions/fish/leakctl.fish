# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_leakctl_global_optspecs
    string join \n h/help V/version
end

function __fish_leakctl_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_leakctl_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_leakctl_using_subcommand
    set -l cmd (__fish_leakctl_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c leakctl -n "__fish_leakctl_needs_command" -s h -l help -d 'Print help'
complete -c leakctl -n "__fish_leakctl_needs_command" -s V -l version -d 'Print version'
complete -c leakctl -n "__fish_leakctl_needs_command" -f -a "attach" -d 'Watch running processes for a while and report what they hold'
complete -c leakctl -n "__fish_leakctl_needs_command" -f -a "run" -d 'Run a command and report what it holds when it ends'
complete -c leakctl -n "__fish_leakctl_needs_command" -f -a "scan" -d 'Say which outstanding blocks of a process nothing can reach any more'
complete -c leakctl -n "__fish_leakctl_needs_command" -f -a "kernel" -d 'Watch the kernel\'s own memory for a while and report who holds it'
complete -c leakctl -n "__fish_leakctl_needs_command" -f -a "top" -d 'Show all processes and what they hold, live, on the whole terminal'
complete -c leakctl -n "__fish_leakctl_needs_command" -f -a "doctor" -d 'Say what this kernel and machine can do, and try it on a child process'
complete -c leakctl -n "__fish_leakctl_needs_command" -f -a "status" -d 'Say what the daemon does and what it costs'
complete -c leakctl -n "__fish_leakctl_needs_command" -f -a "targets" -d 'List the processes that the daemon suspects or has traced'
complete -c leakctl -n "__fish_leakctl_needs_command" -f -a "report" -d 'Show the call sites that the daemon has found'
complete -c leakctl -n "__fish_leakctl_needs_command" -f -a "watch" -d 'Show a line for each verdict of the daemon as it comes'
complete -c leakctl -n "__fish_leakctl_needs_command" -f -a "detach" -d 'Have the daemon take its probes out of a process, and leave it alone'
complete -c leakctl -n "__fish_leakctl_needs_command" -f -a "set" -d 'Change a setting of the daemon until its next reload or restart'
complete -c leakctl -n "__fish_leakctl_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c leakctl -n "__fish_leakctl_using_subcommand attach" -l for -d 'Watch for so long, e.g. 30s, 5m, 1h. [default: 30s; with --detach: on and on]' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand attach" -l min-age -d 'Blocks younger than this rank no call site: they may be in use. [default: 10s, or a third of --for if that is less]' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand attach" -l socket -d 'The daemon\'s socket' -r -F
complete -c leakctl -n "__fish_leakctl_using_subcommand attach" -l top -d 'Show at most this many call sites of each process' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand attach" -l output -d 'Write the report to this file' -r -F
complete -c leakctl -n "__fish_leakctl_using_subcommand attach" -l sample-bytes -d 'Record about one allocation for each N bytes, to cost less; figures become estimates' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand attach" -l alloc -d 'An allocating function of your own, such as `pool_get:size=2,ret`, `make:size=1,count=2,ret` or `get:size=2,out=1`. No exception may leave it: under a return probe it ends the program' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand attach" -l free -d 'The function that frees its blocks, such as `pool_put:ptr=1`' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand attach" -l max-blocks -d 'Outstanding blocks to keep track of in each process; 100 bytes of kernel memory each' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand attach" -l detach -d 'Have the daemon trace them, and do not wait: the trace goes on until `leakctl detach`, or for as long as --for says'
complete -c leakctl -n "__fish_leakctl_using_subcommand attach" -l no-daemon -d 'Trace them from here, even where a daemon runs'
complete -c leakctl -n "__fish_leakctl_using_subcommand attach" -l json -d 'Write one JSON document instead of text'
complete -c leakctl -n "__fish_leakctl_using_subcommand attach" -l all-frames -d 'Show every frame of each stack'
complete -c leakctl -n "__fish_leakctl_using_subcommand attach" -l follow-forks -d 'Trace the processes that they make, too'
complete -c leakctl -n "__fish_leakctl_using_subcommand attach" -l check-frees -d 'Look for blocks that are freed twice, and with `run` for frees of what was never allocated. The stack of each free is walked, too: it costs as much as that of each allocation'
complete -c leakctl -n "__fish_leakctl_using_subcommand attach" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c leakctl -n "__fish_leakctl_using_subcommand run" -l top -d 'Show at most this many call sites of each process' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand run" -l output -d 'Write the report to this file' -r -F
complete -c leakctl -n "__fish_leakctl_using_subcommand run" -l sample-bytes -d 'Record about one allocation for each N bytes, to cost less; figures become estimates' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand run" -l alloc -d 'An allocating function of your own, such as `pool_get:size=2,ret`, `make:size=1,count=2,ret` or `get:size=2,out=1`. No exception may leave it: under a return probe it ends the program' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand run" -l free -d 'The function that frees its blocks, such as `pool_put:ptr=1`' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand run" -l max-blocks -d 'Outstanding blocks to keep track of in each process; 100 bytes of kernel memory each' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand run" -l error-exitcode -d 'Exit with this status if blocks are outstanding when the command ends; 0: pass the command\'s own on' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand run" -l json -d 'Write one JSON document instead of text'
complete -c leakctl -n "__fish_leakctl_using_subcommand run" -l all-frames -d 'Show every frame of each stack'
complete -c leakctl -n "__fish_leakctl_using_subcommand run" -l follow-forks -d 'Trace the processes that they make, too'
complete -c leakctl -n "__fish_leakctl_using_subcommand run" -l check-frees -d 'Look for blocks that are freed twice, and with `run` for frees of what was never allocated. The stack of each free is walked, too: it costs as much as that of each allocation'
complete -c leakctl -n "__fish_leakctl_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c leakctl -n "__fish_leakctl_using_subcommand scan" -l for -d 'Record its allocations for so long first, e.g. 30s, 5m; only these are judged. [default: 30s; 0 where the daemon has it under trace already]' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand scan" -l max-pause -d 'With --stop: let it go on after so long in any case, without a result' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand scan" -l socket -d 'The daemon\'s socket' -r -F
complete -c leakctl -n "__fish_leakctl_using_subcommand scan" -l top -d 'Show at most this many call sites of each process' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand scan" -l output -d 'Write the report to this file' -r -F
complete -c leakctl -n "__fish_leakctl_using_subcommand scan" -l alloc -d 'An allocating function of your own, such as `pool_get:size=2,ret`, `make:size=1,count=2,ret` or `get:size=2,out=1`. No exception may leave it: under a return probe it ends the program' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand scan" -l free -d 'The function that frees its blocks, such as `pool_put:ptr=1`' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand scan" -l max-blocks -d 'Outstanding blocks to keep track of in each process; 100 bytes of kernel memory each' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand scan" -l stop -d 'Stop the process and look once, exactly, instead of many times while it runs'
complete -c leakctl -n "__fish_leakctl_using_subcommand scan" -l no-daemon -d 'Record from here, even where a daemon runs'
complete -c leakctl -n "__fish_leakctl_using_subcommand scan" -l json -d 'Write one JSON document instead of text'
complete -c leakctl -n "__fish_leakctl_using_subcommand scan" -l all-frames -d 'Show every frame of each stack'
complete -c leakctl -n "__fish_leakctl_using_subcommand scan" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c leakctl -n "__fish_leakctl_using_subcommand kernel" -l for -d 'Watch for so long, e.g. 30s, 5m, 1h' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand kernel" -l cache -d 'Only this slab cache, as /proc/slabinfo calls it. `kmalloc-96` is every kmalloc of 96 bytes, whatever its flags' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand kernel" -l only -d 'Only these kinds of memory; may be given more than once' -r -f -a "slab\t'kmalloc and slab caches'
kmalloc\t'kmalloc: by size'
cache\t'slab caches of their own'
pages\t'whole pages, but for user memory and the page cache'
percpu\t'memory that each CPU has a copy of'
vmalloc\t'areas of addresses: vmalloc, vmap, ioremap'"
complete -c leakctl -n "__fish_leakctl_using_subcommand kernel" -l min-bytes -d 'Only blocks that take at least so many bytes' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand kernel" -l max-bytes -d 'Only blocks that take at most so many bytes' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand kernel" -l min-age -d 'Blocks younger than this rank no call site: they may be in use. [default: a third of --for, 20s at most]' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand kernel" -l max-blocks -d 'Outstanding blocks to keep track of; their table takes 100 bytes of kernel memory each, from the start' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand kernel" -l socket -d 'The daemon\'s socket' -r -F
complete -c leakctl -n "__fish_leakctl_using_subcommand kernel" -l top -d 'Show at most this many call sites of each process' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand kernel" -l output -d 'Write the report to this file' -r -F
complete -c leakctl -n "__fish_leakctl_using_subcommand kernel" -l no-daemon -d 'Trace from here, even where a daemon runs'
complete -c leakctl -n "__fish_leakctl_using_subcommand kernel" -l json -d 'Write one JSON document instead of text'
complete -c leakctl -n "__fish_leakctl_using_subcommand kernel" -l all-frames -d 'Show every frame of each stack'
complete -c leakctl -n "__fish_leakctl_using_subcommand kernel" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c leakctl -n "__fish_leakctl_using_subcommand top" -l socket -d 'The daemon\'s socket' -r -F
complete -c leakctl -n "__fish_leakctl_using_subcommand top" -l no-daemon -d 'Watch and trace from here, as root; what is traced ends with it'
complete -c leakctl -n "__fish_leakctl_using_subcommand top" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c leakctl -n "__fish_leakctl_using_subcommand doctor" -l for -d 'For how long, e.g. 2s, 1m' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand doctor" -l json -d 'Write one JSON document instead of text'
complete -c leakctl -n "__fish_leakctl_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c leakctl -n "__fish_leakctl_using_subcommand status" -l socket -d 'The daemon\'s socket' -r -F
complete -c leakctl -n "__fish_leakctl_using_subcommand status" -l json -d 'Write one JSON document instead of text'
complete -c leakctl -n "__fish_leakctl_using_subcommand status" -s h -l help -d 'Print help'
complete -c leakctl -n "__fish_leakctl_using_subcommand targets" -l sort -d 'The order' -r -f -a "growth\t''
outstanding\t''
cost\t''
memory\t''
pid\t''"
complete -c leakctl -n "__fish_leakctl_using_subcommand targets" -l limit -d 'At most so many' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand targets" -l socket -d 'The daemon\'s socket' -r -F
complete -c leakctl -n "__fish_leakctl_using_subcommand targets" -l all -d 'All processes that are watched'
complete -c leakctl -n "__fish_leakctl_using_subcommand targets" -l json -d 'Write one JSON document instead of text'
complete -c leakctl -n "__fish_leakctl_using_subcommand targets" -s h -l help -d 'Print help'
complete -c leakctl -n "__fish_leakctl_using_subcommand report" -l unit -d 'Of the processes of this systemd unit' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand report" -l min-age -d 'Blocks younger than this rank no call site. [default: as configured]' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand report" -l top -d 'Show at most this many call sites of each process' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand report" -l output -d 'Write the report to this file' -r -F
complete -c leakctl -n "__fish_leakctl_using_subcommand report" -l socket -d 'The daemon\'s socket' -r -F
complete -c leakctl -n "__fish_leakctl_using_subcommand report" -l kernel -d 'Of the kernel\'s own memory'
complete -c leakctl -n "__fish_leakctl_using_subcommand report" -l all -d 'Of all that are or were under trace'
complete -c leakctl -n "__fish_leakctl_using_subcommand report" -l json -d 'Write one JSON document instead of text'
complete -c leakctl -n "__fish_leakctl_using_subcommand report" -l all-frames -d 'Show every frame of each stack'
complete -c leakctl -n "__fish_leakctl_using_subcommand report" -s h -l help -d 'Print help'
complete -c leakctl -n "__fish_leakctl_using_subcommand watch" -l socket -d 'The daemon\'s socket' -r -F
complete -c leakctl -n "__fish_leakctl_using_subcommand watch" -l json -d 'Write a JSON document for each event'
complete -c leakctl -n "__fish_leakctl_using_subcommand watch" -l verbose -d 'Show what the governor does and when traces begin and end, too'
complete -c leakctl -n "__fish_leakctl_using_subcommand watch" -s h -l help -d 'Print help'
complete -c leakctl -n "__fish_leakctl_using_subcommand detach" -l socket -d 'The daemon\'s socket' -r -F
complete -c leakctl -n "__fish_leakctl_using_subcommand detach" -s h -l help -d 'Print help'
complete -c leakctl -n "__fish_leakctl_using_subcommand set" -l mode -d 'What is traced: adaptive, targets, all or off' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand set" -l budget -d 'What tracing may cost a target, in percent of its CPU time' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand set" -l machine-budget -d 'What leakd may cost altogether, in percent of all CPUs' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand set" -l max-targets -d 'Processes that are traced at once' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand set" -l log-level -d 'error, warn, info, debug or trace' -r
complete -c leakctl -n "__fish_leakctl_using_subcommand set" -l socket -d 'The daemon\'s socket' -r -F
complete -c leakctl -n "__fish_leakctl_using_subcommand set" -s h -l help -d 'Print help'
complete -c leakctl -n "__fish_leakctl_using_subcommand help; and not __fish_seen_subcommand_from attach run scan kernel top doctor status targets report watch detach set help" -f -a "attach" -d 'Watch running processes for a while and report what they hold'
complete -c leakctl -n "__fish_leakctl_using_subcommand help; and not __fish_seen_subcommand_from attach run scan kernel top doctor status targets report watch detach set help" -f -a "run" -d 'Run a command and report what it holds when it ends'
complete -c leakctl -n "__fish_leakctl_using_subcommand help; and not __fish_seen_subcommand_from attach run scan kernel top doctor status targets report watch detach set help" -f -a "scan" -d 'Say which outstanding blocks of a process nothing can reach any more'
complete -c leakctl -n "__fish_leakctl_using_subcommand help; and not __fish_seen_subcommand_from attach run scan kernel top doctor status targets report watch detach set help" -f -a "kernel" -d 'Watch the kernel\'s own memory for a while and report who holds it'
complete -c leakctl -n "__fish_leakctl_using_subcommand help; and not __fish_seen_subcommand_from attach run scan kernel top doctor status targets report watch detach set help" -f -a "top" -d 'Show all processes and what they hold, live, on the whole terminal'
complete -c leakctl -n "__fish_leakctl_using_subcommand help; and not __fish_seen_subcommand_from attach run scan kernel top doctor status targets report watch detach set help" -f -a "doctor" -d 'Say what this kernel and machine can do, and try it on a child process'
complete -c leakctl -n "__fish_leakctl_using_subcommand help; and not __fish_seen_subcommand_from attach run scan kernel top doctor status targets report watch detach set help" -f -a "status" -d 'Say what the daemon does and what it costs'
complete -c leakctl -n "__fish_leakctl_using_subcommand help; and not __fish_seen_subcommand_from attach run scan kernel top doctor status targets report watch detach set help" -f -a "targets" -d 'List the processes that the daemon suspects or has traced'
complete -c leakctl -n "__fish_leakctl_using_subcommand help; and not __fish_seen_subcommand_from attach run scan kernel top doctor status targets report watch detach set help" -f -a "report" -d 'Show the call sites that the daemon has found'
complete -c leakctl -n "__fish_leakctl_using_subcommand help; and not __fish_seen_subcommand_from attach run scan kernel top doctor status targets report watch detach set help" -f -a "watch" -d 'Show a line for each verdict of the daemon as it comes'
complete -c leakctl -n "__fish_leakctl_using_subcommand help; and not __fish_seen_subcommand_from attach run scan kernel top doctor status targets report watch detach set help" -f -a "detach" -d 'Have the daemon take its probes out of a process, and leave it alone'
complete -c leakctl -n "__fish_leakctl_using_subcommand help; and not __fish_seen_subcommand_from attach run scan kernel top doctor status targets report watch detach set help" -f -a "set" -d 'Change a setting of the daemon until its next reload or restart'
complete -c leakctl -n "__fish_leakctl_using_subcommand help; and not __fish_seen_subcommand_from attach run scan kernel top doctor status targets report watch detach set help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
