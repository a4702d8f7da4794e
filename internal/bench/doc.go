// Package bench measures the programs as they are deployed: an edge and consumers from
// bin/, each a process of its own, a server beside them with every message on disk before
// it is acknowledged, and the raw ceilings of the same machine in the same run.
//
// Begin with Run. A Report is its outcome, which Markdown writes as the table of
// docs/bench.md. All callers are in this process and share the machine's cores with the
// programs, as they do wherever one machine has to do for all: ratios hold, absolute
// figures move.
package bench
