"""What is measured, in the order of docs/benchmarks.md, and what it should be."""

from __future__ import annotations

from tests.bench import (
    Goal,
    Section,
    advise,
    agents,
    bursts,
    cli,
    detect,
    fanout,
    flows,
    kernel,
    map,
    rules,
    single,
    together,
    tops,
    traceloop,
    tunnel,
    why,
)
from tests.bench.streams import compare

OPENS = "kubectl gadget opensnoop, as JSON"
EXECS = "kubectl gadget execsnoop, as JSON"
CONNECTS = "kubectl gadget tcpconnect, as JSON"
SLOWER = (
    "At this rate a message has but a few events, and what each message costs two processes, with gRPC between them, is "
    "most of it; at a higher rate more events share it."
)
AGENT = (
    "A third is the kernel's, for the socket and to wake gRPC's threads, a quarter copies of the events, a sixth Python's "
    "for each batch (`perf record`)."
)
CLI = "Most of it is to write 20 keys a line."
MEMORY = Goal(80, missed="The rings of the run, 12 MiB, are counted in it.")
OPENS_GOALS = {
    (OPENS, "shown at 100k/s"): Goal(100, at_least=True),
    (f"{OPENS}: gadget-agent", "CPU per event at 100k/s"): Goal(0.15, missed=AGENT),
    (f"{OPENS}: kubectl-gadget", "CPU per event at 100k/s"): Goal(3, missed=CLI),
    (f"{OPENS}: gadget-agent", "memory"): MEMORY,
}
EXECS_GOALS = {(f"{EXECS}: gadget-agent", "memory"): MEMORY}
CONNECTS_GOALS = {(f"{CONNECTS}: gadget-agent", "memory"): MEMORY}

SECTIONS = (
    Section(
        "traceloop",
        "traceloop: what is recorded all the time, beside what is switched on",
        "Added to the cheapest system call (getppid), in ns; and how much more CPU real work takes than without a "
        "tool in the same round, what traces it included: tar of a tree of headers, which does little else than system calls, and a redis server with 20 clients. "
        "strace and perf trace follow one program and write of each call; bpftrace counts on the whole machine.",
        (traceloop.compare,),
        traceloop.RECORDED,
    ),
    Section(
        "opensnoop",
        "opensnoop",
        "All write to a file in memory. A tool's CPU is that of all its processes, agent and command line, for each event "
        "that it shows; the rows below it are its parts. What it spends on events of others is left out, by lines. Memory is "
        "the most it had, after all of this. *First event* is the time from its start, of kubectl gadget beside "
        "an agent that runs, as in a cluster. *Added to each event* is CPU of the traced program, "
        "*shown of a flood* is of one process that opens files as fast as it can. The files have 1,009 "
        "names of various lengths. Only kubectl gadget tells containers, "
        "flags and modes; perf trace shows paths as addresses.",
        (compare("opens", OPENS_GOALS),),
        OPENS,
        SLOWER,
    ),
    Section(
        "execsnoop",
        "execsnoop",
        "As above. execsnoop.bt tells of attempts, without their result.",
        (compare("execs", EXECS_GOALS),),
        EXECS,
        SLOWER,
    ),
    Section(
        "tcpconnect",
        "tcpconnect",
        "As above, over loopback. kubectl gadget tells how each attempt ended and how long it took, the others do not.",
        (compare("connects", CONNECTS_GOALS),),
        CONNECTS,
        SLOWER,
    ),
    Section(
        "bursts",
        "dnssnoop and sigsnoop at high rates",
        "One stream as JSON. A question over loopback, with its answer, is four rows: both are seen where they leave and where they "
        "come. A signal is one. *Told* is what is shown, and what the last line says is lost. CPU is that of the agent, for each row "
        "that was made. What makes the events takes its share of the machine, and at the highest rate all that there is.",
        (bursts.measure,),
    ),
    Section(
        "together",
        "All live gadgets at once, on a pod that builds a program",
        "A `make` of 41 small C files, one after the other, in a pod that all live gadgets watch, as one stream of JSON: how much longer "
        "it takes than without a tool in the same round, and how much more CPU. An agent has all its recorders, as it is deployed. "
        "bpftrace tells of opens and execs alone; perf trace and strace follow the `make`, and write each call to "
        "/dev/null. Memory is the most it had.",
        (together.compare,),
        together.ALL,
    ),
    Section(
        "cli",
        "The command line",
        "On one node, unless it says how many.",
        (
            single(cli.help_text),
            single(cli.start_up),
            single(cli.first_event),
            single(cli.json_rows),
            single(cli.column_rows),
            single(cli.replay),
            single(tunnel.one_tunnel, Goal(50, at_least=True)),
            single(fanout.cpu_of_200_agents),
            single(fanout.memory_of_200_agents),
            single(fanout.late_of_200_agents),
            single(advise.advise_seconds, Goal(10)),
            single(advise.advise_memory, Goal(500)),
            single(advise.advise_clients_seconds, Goal(10)),
            single(advise.advise_clients_memory, Goal(500)),
            single(advise.check_memory, Goal(300)),
        ),
    ),
    Section(
        "why",
        "why: containers that failed",
        "Of the corpus in tests/why, each another program: of many ends of one container the newest alone is looked into.",
        (why.measure,),
    ),
    Section(
        "rules",
        "detect: rules",
        "Rules alone, in batches of 10,000 opens by 200 processes of 2,000 files: of usual ones, which the paths of rules leave out at "
        "once, and of such as rules are about, so that the process is asked about, too. Falco's engine takes 1.0 to 1.2 µs for an "
        "open under its stable rules, and 6.5 to 8 µs under all 93.",
        (rules.measure,),
    ),
    Section(
        "detect",
        "detect: an agent that judges",
        "One container opens 1,009 files, 100,000 a second, all of which the kernel sends; in the midst of them 101 reads are what a "
        "rule is about. CPU is all that the agent takes for each; *for rules* is its busiest thread, which knows the process and "
        "the file of each and asks the rules, and the rest is mostly to read them from the kernel. *Judged or told* is what rules "
        "were asked about, and what the last line says is lost.",
        (detect.measure,),
    ),
    Section(
        "agent",
        "The agent, with every recorder on",
        "As deployed, with the watch of its node's pods, whose JSON is 8 KB each. Memory is what is resident.",
        (agents.measure,),
    ),
    Section(
        "flows",
        "The recorder of flows, and the flow log",
        "CPU of two ends in one process, both recorded: a packet is seen where it leaves and where it comes. What programs "
        "take is as the kernel counts, its own counting of 20 to 50 ns a run included.",
        (flows.compare,),
    ),
    Section(
        "names",
        "Names in the flow log (`--flows-names`)",
        f"What an agent takes more than without it, while {flows.QUESTIONS:,} questions of DNS a second are answered for 10 s, "
        "both by pods of the node: with its answer each is four messages, as each end sees both. The last rows are the most "
        "that is kept. A run of dnssnoop that is there anyway, as with `--detect`, is not made twice: then the first row and "
        "the maps are none.",
        (flows.names,),
    ),
    Section(
        "map",
        "map: the page and its server",
        "In headless Chromium without a GPU, from the address to the picture: at most 150 boxes are drawn, the table has "
        "every edge. CPU is for each flow that comes, whether a page is open or not.",
        (map.measure,),
    ),
    Section(
        "tops",
        "Tables",
        "A gadget that counts, with a table every 0.5 s: its programs add up in the kernel, so the agent takes as much for a "
        "table of few events as for one of many. A table is read, named, sent and its interval's timer served.",
        (tops.measure,),
    ),
    Section(
        "programs",
        "Programs with nothing to say",
        "As the kernel counts (`kernel.bpf_stats_enabled`), its own counting included.",
        (single(kernel.exec_not_chosen), single(kernel.syscall_beside_execsnoop)),
    ),
)
