package sheets

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"leadpipe/internal/natstest"
	"leadpipe/internal/sandbox/google"
	"leadpipe/internal/state"
)

// formerRelease is the commit that the first release was built from.
const formerRelease = "703d010"

// The first release's program and this one side by side, on one bucket and one sheet,
// each believing that it is the writer: nothing is lost in either direction, every key has
// one row, and a person's notes stay beside their keys. In the end, when the former
// program is gone, every cell is right. It builds the former program from the repository's
// history; TestFormerSheetIsBroughtForward begins with the sheet that it leaves.
func TestFormerReleaseBesideThisOne(t *testing.T) {
	if os.Getenv("STRESS") == "" {
		t.Skip("runs with STRESS=1: it builds the first release; TestFormerSheetIsBroughtForward covers the rest")
	}
	ctx := t.Context()
	dir := t.TempDir()
	root := natstest.Root(t, ".")
	run := func(in string, env []string, name string, args ...string) {
		t.Helper()
		c := exec.CommandContext(ctx, name, args...)
		c.Dir, c.Env = in, append(os.Environ(), env...)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	}
	tree := filepath.Join(dir, "former")
	run(root, nil, "sh", "-c", fmt.Sprintf("mkdir -p %q && git archive %s | tar -x -C %q", tree, formerRelease, tree))
	program := filepath.Join(dir, "consumers")
	run(tree, nil, "go", "build", "-o", program, "./cmd/consumers")

	server := natstest.New(t, natstest.LazySync, natstest.Former)
	js := server.JetStream("operator")
	r := &rig{js: js, store: state.New(js, nil), clock: time.Now()}
	s, w := dial(t, r, google.Options{Spreadsheets: []string{"sheet1"}, ReadsPerMinute: google.Unlimited, WritesPerMinute: google.Unlimited})
	r.paper = &paper{Server: s}
	w.client.reads, w.client.writes = perMinute(6000), perMinute(6000) // the two fight for the fence all the time
	former := exec.CommandContext(ctx, program, "sheets")
	former.Env = append(os.Environ(), "NATS_URL="+server.URL("consumers"), "METRICS_ADDR=127.0.0.1:0", "GOOGLE_SHEETS_ID=sheet1",
		"GOOGLE_SHEETS_READS_PER_MINUTE=6000", "GOOGLE_SHEETS_WRITES_PER_MINUTE=6000",
		"GOOGLE_SHEETS_URL="+w.opt.URL, "GOOGLE_APPLICATION_CREDENTIALS="+w.opt.CredentialsFile)
	var log strings.Builder
	former.Stderr = &log
	if err := former.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- former.Wait() }()
	rowsBy := func(deadline time.Duration, n int) {
		t.Helper()
		for until := time.Now().Add(deadline); ; time.Sleep(200 * time.Millisecond) {
			if len(r.paper.page(t, "Leads").table()) >= n {
				return
			}
			if time.Now().After(until) {
				t.Fatalf("%d rows of %d; the former program says: %s", len(r.paper.page(t, "Leads").table()), n, log.String())
			}
		}
	}
	r.put(t, leads(0, 20))
	rowsBy(time.Minute, 20)
	g := r.paper.page(t, "Leads")
	col := g.notes()
	for row := range 20 {
		g.set(row+1, col, "note "+g.text(row+1, 0))
	}
	// From here on both write: the former one what the durable gives it, this one all.
	for n := 20; n < 50; n++ {
		r.put(t, leads(n, n+1))
		r.put(t, changed(n-20))
		if n%10 == 5 {
			_ = s.SortBy("Leads", 1, n%20 == 5)
		}
		_ = w.Handle(ctx, r.changes(t)) // what loses against the other comes with the audit
		if n%7 == 0 {
			_, _ = w.Audit(ctx)
		}
		time.Sleep(300 * time.Millisecond)
	}
	rowsBy(time.Minute, 50)
	// The former program stops, as in an upgrade; this one is alone.
	if err := former.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("the former program does not stop")
	}
	for range 2 {
		if _, err := w.Audit(context.WithoutCancel(ctx)); err != nil {
			t.Fatal(err)
		}
	}
	if d := r.check(t); d != "" {
		t.Fatalf("bucket (-) and sheet (+) differ:\n%s", d)
	}
	notes := 0
	for _, row := range g.table() {
		if note := row["Notes"]; note != "" {
			if notes++; note != "note "+row["id"] {
				t.Errorf("%q stands beside %s", note, row["id"])
			}
		}
	}
	if notes != 20 {
		t.Errorf("%d notes of 20", notes)
	}
}
