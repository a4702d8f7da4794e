package bench

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A short run measures everything once, with the real programs.
func TestRun(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./cmd/edge", "./cmd/consumers")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r, err := Run(t.Context(), Options{Bin: bin, Conf: filepath.Join("..", "..", "nats.conf"), Dir: t.TempDir(), Length: 50 * time.Millisecond, Fold: 200,
		Waiting: 100, Timeout: time.Second, Log: func(what string) { t.Log(what) }})
	if err != nil {
		t.Fatal(err)
	}
	figures := map[string]float64{"fsyncs": r.Fsyncs, "batches": r.Batches, "fold": r.Fold, "fold, large": r.FoldLarge,
		"edge, rest": r.Memory["edge"].Rest, "edge, load": r.Memory["edge"].Load, "waiting": r.Hung, "consumers": r.Memory["consumers"].Load}
	for _, n := range callers {
		for how, rate := range map[string]Rate{"edge": r.Callers[n].Edge, "raw": r.Callers[n].Raw, "verify": r.Callers[n].Verify} {
			figures[how] = rate.PerSecond
			if rate.P50 <= 0 || rate.P99 < rate.P50 {
				t.Errorf("%s, %d callers: p50 %v, p99 %v", how, n, rate.P50, rate.P99)
			}
		}
	}
	for name, f := range figures {
		if f <= 0 {
			t.Errorf("%s: %v", name, f)
		}
	}
	if r.Bytes != webhookBytes {
		t.Errorf("webhooks of %d bytes, not %d", r.Bytes, webhookBytes)
	}
}

// What the pages show is the newest run.
func TestPagesShowTheNewestRun(t *testing.T) {
	t.Parallel()
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join("..", "..", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	var r Report
	if err := json.Unmarshal([]byte(read("docs/bench.json")), &r); err != nil {
		t.Fatal(err)
	}
	if read("docs/bench.md") != r.Page() {
		t.Error("docs/bench.md is not of docs/bench.json: make bench-table")
	}
	if !strings.Contains(read("README.md"), r.Markdown()) {
		t.Errorf("README.md does not show the newest table:\n%s", r.Markdown())
	}
}
