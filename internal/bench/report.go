package bench

import (
	"fmt"
	"strings"
	"time"
)

// A Report is what one run measured. Rates are per second, times in milliseconds, memory
// in megabytes of 1,000,000 bytes.
type Report struct {
	Date    time.Time `json:"date"`
	Machine string    `json:"machine"`
	Go      string    `json:"go"`
	Bytes   int       `json:"webhook_bytes"` // of one body

	Fsyncs    float64          `json:"fsyncs_per_s"`        // of one record after another, on the store's disk
	Batches   float64          `json:"raw_in_batches"`      // messages, in atomic batches of 100
	Callers   map[int]AtOnce   `json:"callers"`             // by how many call at a time
	Memory    map[string]Sizes `json:"memory"`              // by program
	Hung      float64          `json:"edge_waiting_mb"`     // the edge, with Waiting requests for a server that does not answer
	Waiting   int              `json:"requests_waiting"`    // of which the edge keeps as many as it may
	PerID     float64          `json:"bytes_per_id"`        // what the server's memory grew by, for each message id
	Fold      float64          `json:"billing_per_s"`       // events of a backlog, by one process
	FoldLarge float64          `json:"billing_large_per_s"` // the same over ten times the records
	Folded    int              `json:"billing_events"`
	Binary    map[string]int64 `json:"binary_bytes"`
}

// AtOnce is what some callers at a time reached.
type AtOnce struct {
	Edge   Rate `json:"edge"`   // webhooks answered 200 over HTTP
	Raw    Rate `json:"raw"`    // messages published one by one over NATS
	Verify Rate `json:"verify"` // HTTP, and nothing but the signature
}

// Sizes are a program's resident memory, in megabytes.
type Sizes struct {
	Rest float64 `json:"rest_mb"` // before the load; of consumers, which begin with it, after
	Load float64 `json:"load_mb"` // the most that was seen
}

// Page is docs/bench.md.
func (r Report) Page() string {
	return `# Measured

` + "`make bench-table`" + ` writes this page, and the figures behind it to bench.json; ` + "`make bench`" + ` runs the Go benchmarks as well, which
measure the parts: publishing, folding, webhook to text and to row, the spreadsheet at 100,000 rows. The callers are in a process of their own and
share the machine's cores with the programs.

` + r.Markdown()
}

// Markdown is the report as docs/bench.md and the README show it.
func (r Report) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s: %s, %s; webhooks of %s bytes, one server, every message on disk before it is acknowledged.\n\n",
		r.Date.Format("2 January 2006"), r.Machine, r.Go, thousands(float64(r.Bytes)))
	b.WriteString("| callers at a time | edge: webhooks/s | p50, p99 | raw publish, one by one/s | p50, p99 | edge of raw | HTTP and signature alone/s |\n|---|---|---|---|---|---|---|\n")
	for _, n := range callers {
		c := r.Callers[n]
		fmt.Fprintf(&b, "| %d | %s | %s | %s | %s | %.2f | %s |\n", n, thousands(c.Edge.PerSecond), c.Edge.times(), thousands(c.Raw.PerSecond), c.Raw.times(),
			c.Edge.PerSecond/c.Raw.PerSecond, thousands(c.Verify.PerSecond))
	}
	b.WriteString("\n| what | figure |\n|---|---|\n")
	row := func(what, figure string) { fmt.Fprintf(&b, "| %s | %s |\n", what, figure) }
	row("the disk: a record written and synced, one after another", thousands(r.Fsyncs)+"/s")
	row("raw publish in atomic batches of 100", thousands(r.Batches)+" messages/s")
	row(fmt.Sprintf("billing: a backlog of %s events, one process", thousands(float64(r.Folded))), thousands(r.Fold)+" events/s")
	row("billing: the same, over ten times the records", thousands(r.FoldLarge)+" events/s")
	for _, name := range []string{"edge", "consumers", "server"} {
		m := r.Memory[name]
		row(name+": resident memory at rest, most under load", fmt.Sprintf("%.0f MB, %.0f MB", m.Rest, m.Load))
	}
	row(fmt.Sprintf("edge: most memory with %s callers waiting for a server that does not answer", thousands(float64(r.Waiting))), fmt.Sprintf("%.0f MB", r.Hung))
	row("server: memory for each message id that it has stored within the window", thousands(r.PerID)+" bytes")
	for _, name := range []string{"edge", "consumers"} {
		row(name+": binary", fmt.Sprintf("%.0f MB", float64(r.Binary[name])/1e6))
	}
	return b.String()
}

func (r Rate) times() string { return fmt.Sprintf("%.1f, %.1f ms", r.P50, r.P99) }

// thousands writes a figure as people read it: "12,345".
func thousands(f float64) string {
	s := fmt.Sprintf("%.0f", f)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
