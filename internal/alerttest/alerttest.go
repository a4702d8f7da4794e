// Package alerttest lets tests see which alerts of deploy/prometheus fire over what the
// programs really serve. Prometheus's own engine evaluates them, in a program of its own
// (internal/tools/alerts).
package alerttest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"leadpipe/internal/natstest"
)

// A Rule is an alert and where its explanation is.
type Rule struct{ Alert, Runbook string }

// An Answer is what the rules come to at the end of a Timeline.
type Answer struct {
	Rules   []Rule
	Firing  []string
	Metrics []string // that rules and expressions name
}

// A Timeline is what programs served, at times that a test makes up: what takes ten
// minutes to fire would take ten minutes to test.
type Timeline struct {
	Scrapes []Scrape
	at      time.Duration
}

// A Scrape is what a program, named as its job, served. Text is empty where it did not answer.
type Scrape struct {
	Job  string  `json:"job"`
	At   float64 `json:"at"` // seconds
	Text string  `json:"text"`
}

// Get scrapes a program now.
func Get(tb testing.TB, job, addr string) Scrape {
	tb.Helper()
	res, err := http.Get(addr + "/metrics")
	if err != nil {
		return Scrape{Job: job}
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return Scrape{Job: job, Text: string(body)}
}

// Value is the value of a metric in what was scraped, written with its labels as it was
// served; "" where it was not.
func (s Scrape) Value(metric string) string {
	for line := range strings.Lines(s.Text) {
		if v, ok := strings.CutPrefix(line, metric+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// Hold lets the programs serve the same for a while.
func (l *Timeline) Hold(d time.Duration, scrapes ...Scrape) {
	const every = 15 * time.Second
	for end := l.at + d; l.at < end; l.at += every {
		for _, s := range scrapes {
			s.At = l.at.Seconds()
			l.Scrapes = append(l.Scrapes, s)
		}
	}
}

// Ask evaluates the rules over a timeline, and reads the expressions. Changes replace parts
// of the rules first, old before new: a threshold of minutes by one of seconds.
func Ask(tb testing.TB, l Timeline, exprs []string, changes ...string) Answer {
	tb.Helper()
	dir := tb.TempDir()
	text, err := os.ReadFile(natstest.Root(tb, "deploy/prometheus/alerts.yml"))
	if err != nil {
		tb.Fatal(err)
	}
	rules := filepath.Join(dir, "alerts.yml")
	if err := os.WriteFile(rules, []byte(strings.NewReplacer(changes...).Replace(string(text))), 0o600); err != nil {
		tb.Fatal(err)
	}
	question, err := json.Marshal(map[string]any{"rules": rules, "scrapes": l.Scrapes, "exprs": exprs})
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command("go", "run", ".") // which keeps what it has built
	cmd.Dir = natstest.Root(tb, "internal/tools/alerts")
	cmd.Stdin = bytes.NewReader(question)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("evaluating the alerts: %v\n%s", err, stderr.String())
	}
	var a Answer
	if err := json.Unmarshal(out, &a); err != nil {
		tb.Fatal(err)
	}
	return a
}

// Fires says whether an alert fires.
func (a Answer) Fires(alert string) bool { return slices.Contains(a.Firing, alert) }
