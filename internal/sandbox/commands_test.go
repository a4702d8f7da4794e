package sandbox_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"leadpipe/internal/natstest"
)

// TestMakeRun is what the pages tell a newcomer second: the page is there, and a lead
// from its panel is seen in the spreadsheet and on the phone.
func TestMakeRun(t *testing.T) {
	t.Parallel()
	needs(t, "make", "sh", "go")
	ports := freePorts(t, 3)
	page := fmt.Sprint("http://127.0.0.1:", ports[1])
	open(t, "make run", append(os.Environ(), "NATS_CONF="+confOn(t, t.TempDir(), ports[0]),
		fmt.Sprint("SANDBOX_ADDR=127.0.0.1:", ports[1]), fmt.Sprint("EDGE_ADDR=127.0.0.1:", ports[2])))
	answers(t, page+"/")

	res, err := http.PostForm(page+"/panel/do/lead", url.Values{"name": {"Chloé Fontaine"}, "phone": {"+33639980155"}})
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("a lead from the panel: %s", res.Status)
	}
	type world struct {
		Texts []struct{ Phone, Body string }
		Tabs  []struct {
			Title string
			Rows  [][]string
		}
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var w world
		res, err := http.Get(page + "/panel/state")
		if err != nil {
			t.Fatal(err)
		}
		err = json.NewDecoder(res.Body).Decode(&w)
		_ = res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		row, text := false, false
		for _, tab := range w.Tabs {
			for _, cells := range tab.Rows {
				row = row || slices.Contains(cells, "Chloé Fontaine")
			}
		}
		for _, m := range w.Texts {
			text = text || strings.Contains(m.Body, "Chloé")
		}
		if row && text {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("row %v, text %v: %+v", row, text, w)
		}
	}
}

// TestMakeHelp: what the README says lists the rest does, and every target that a page
// names is one.
func TestMakeHelp(t *testing.T) {
	t.Parallel()
	needs(t, "make", "awk")
	help, err := exec.CommandContext(t.Context(), "make", "-C", natstest.Root(t, ""), "help").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range inline(t, `make ([a-z][a-z-]+)`) {
		if !regexp.MustCompile(`(?m)^\s*make ` + c[1] + `\s`).Match(help) {
			t.Errorf("%q is on a page, and make has no such target", c[0])
		}
	}
}

// TestNamedCommands: what pages say in running text of the programs and of go test is
// there: `consumers X` is a durable or a command, `go test … -run X` a test.
func TestNamedCommands(t *testing.T) {
	t.Parallel()
	needs(t, "go")
	consumers := filepath.Join(t.TempDir(), "consumers")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", consumers, "./cmd/consumers")
	build.Dir = natstest.Root(t, "")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	usage, err := exec.CommandContext(t.Context(), consumers, "-h").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, usage)
	}
	for _, c := range inline(t, `consumers ([a-z][a-z-]+)[^`+"`"+`]*`) {
		if !regexp.MustCompile(`\b` + c[1] + `\b`).Match(usage) {
			t.Errorf("%q is on a page, and consumers has no such durable or command", c[0])
		}
	}
	sources := sources(t)
	for _, c := range inline(t, `[^`+"`"+`]*go test [^`+"`"+`]*-(?:run|bench) '?([A-Z]\w+)[^`+"`"+`]*`) {
		if !regexp.MustCompile(`func (Test|Benchmark|Fuzz)?\w*` + c[1]).MatchString(sources) {
			t.Errorf("%q is on a page, and there is no such test", c[0])
		}
	}
}

// inline gives the pages' commands in running text that match a pattern as a whole, with
// the pattern's groups.
func inline(t *testing.T, pattern string) [][]string {
	t.Helper()
	var out [][]string
	eachPage(t, func(_, text string) {
		out = append(out, regexp.MustCompile("`"+pattern+"`").FindAllStringSubmatch(text, -1)...)
	})
	if len(out) == 0 {
		t.Errorf("no page has a command like %s", pattern)
	}
	return out
}
