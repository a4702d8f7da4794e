package internal_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"leadpipe/contracts"
)

// root is the project's, from here.
const root = ".."

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestEveryDurableIsWhole follows CONTRIBUTING's list for each durable there is.
func TestEveryDurableIsWhole(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(root, "streams", "*.consumer.json"))
	if err != nil || len(files) < 6 {
		t.Fatalf("%d durables, %v", len(files), err)
	}
	for _, f := range files {
		stream, rest, _ := strings.Cut(filepath.Base(f), ".")
		name := strings.TrimSuffix(rest, ".consumer.json")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			constant := regexp.MustCompile(`(\w+)\s+= "` + name + `"`).FindStringSubmatch(read(t, "contracts/subjects.go"))
			if constant == nil {
				t.Fatal("contracts/subjects.go does not name it")
			}
			sources, err := filepath.Glob(filepath.Join(root, "internal", name, "*.go"))
			if err != nil {
				t.Fatal(err)
			}
			about, tests := false, 0
			for _, s := range sources {
				text := read(t, strings.TrimPrefix(s, root+"/"))
				about = about || strings.Contains(text, "// Package "+name+" ")
				if strings.HasSuffix(s, "_test.go") {
					tests += strings.Count(text, "\nfunc Test")
				}
			}
			if !about || tests == 0 {
				t.Errorf("internal/%s: package comment %v, %d tests", name, about, tests)
			}
			if !strings.Contains(read(t, "internal/daemon/consumersd/table.go"), "durable: contracts."+constant[1]) {
				t.Error("table.go has no row for it")
			}
			for _, doc := range []string{"docs/interface.md", "contracts/asyncapi.yaml"} {
				if !strings.Contains(read(t, doc), name) {
					t.Errorf("%s does not name it", doc)
				}
			}
			if !strings.Contains(read(t, "nats.conf"), "CONSUMER.MSG.NEXT."+stream+".") {
				t.Error("nats.conf gives nobody the right to its messages")
			}
		})
	}
}

// TestLinksLeadSomewhere: a page that is named in a page exists.
func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`)
	for _, page := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
			}
		}
	}
}

// pages are the Markdown files that git tracks, or will.
func pages(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/decisions/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			all = append(all, strings.TrimPrefix(f, root+"/"))
		}
	}
	if len(all) < 5 {
		t.Fatalf("only %v", all)
	}
	return all
}

// TestPagesListStripesEventTypes: each page has the list that the program goes by, all of it and, where
// the owner enables them one by one, nothing else.
func TestPagesListStripesEventTypes(t *testing.T) {
	t.Parallel()
	types := contracts.StripeEventTypes()
	for _, name := range []string{"docs/interface.md", "docs/production.md"} {
		page := read(t, name)
		for _, typ := range types {
			if !strings.Contains(page, "`"+typ+"`") {
				t.Errorf("%s does not list %s", name, typ)
			}
		}
	}
	shaped := regexp.MustCompile("`((?:customer|checkout|invoice)\\.[a-z_.]+[a-z])`")
	for _, m := range shaped.FindAllStringSubmatch(read(t, "docs/production.md"), -1) {
		if !slices.Contains(types, m[1]) {
			t.Errorf("docs/production.md has %s enabled, which the program does not take", m[1])
		}
	}
}

// TestNamedTestsExist: a page that names a test as proof names one that there is.
func TestNamedTestsExist(t *testing.T) {
	t.Parallel()
	declared := declaredTests(t)
	named := 0
	name := regexp.MustCompile(`\b(?:Test|Benchmark|Fuzz)[A-Z]\w*`)
	for _, page := range pages(t) {
		for _, n := range name.FindAllString(read(t, page), -1) {
			named++
			if !declared[n] {
				t.Errorf("%s names %s, which is not there", page, n)
			}
		}
	}
	if named < 10 {
		t.Errorf("the pages name only %d tests", named)
	}
}

// declaredTests are the names of the tests, benchmarks and fuzz targets that there are.
func declaredTests(t *testing.T) map[string]bool {
	t.Helper()
	declared := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz)\w+)\(`)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range function.FindAllSubmatch(text, -1) {
			declared[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return declared
}

// TestTargetsRunSomething: each part of a pattern by which the Makefile picks tests picks one.
func TestTargetsRunSomething(t *testing.T) {
	t.Parallel()
	declared := declaredTests(t)
	patterns := regexp.MustCompile(`-run '?([A-Z][A-Za-z|]+)`).FindAllStringSubmatch(read(t, "Makefile"), -1)
	if len(patterns) < 4 {
		t.Fatalf("only %v", patterns)
	}
	for _, p := range patterns {
		for part := range strings.SplitSeq(p[1], "|") {
			found := false
			for name := range declared {
				found = found || strings.HasPrefix(name, "Test") && strings.Contains(name, part)
			}
			if !found {
				t.Errorf("the Makefile runs %s, which no test's name has", part)
			}
		}
	}
}

// TestQuotedIncidentsExist: an incident that a page quotes begins as one that the code opens.
func TestQuotedIncidentsExist(t *testing.T) {
	t.Parallel()
	code := ""
	sources, err := filepath.Glob(filepath.Join(root, "internal", "*", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sources {
		if !strings.HasSuffix(s, "_test.go") {
			code += read(t, strings.TrimPrefix(s, root+"/"))
		}
	}
	quoted := 0
	quote := regexp.MustCompile(`an incident: \*([^*]+)\*`)
	for _, page := range pages(t) {
		for _, m := range quote.FindAllStringSubmatch(read(t, page), -1) {
			quoted++
			if !strings.Contains(code, `"`+m[1]) {
				t.Errorf("%s quotes the incident %q, which nothing opens", page, m[1])
			}
		}
	}
	if quoted < 2 {
		t.Errorf("the pages quote only %d incidents", quoted)
	}
}

// TestUnits has systemd read the units, where it is installed.
func TestUnits(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze here: the units are not verified")
	}
	units, err := filepath.Glob(filepath.Join(root, "deploy", "systemd", "*.service"))
	if err != nil || len(units) != 2 {
		t.Fatalf("%v, %v", units, err)
	}
	for _, u := range units {
		// Verified with a program that exists, since ours is not installed.
		text := regexp.MustCompile(`(?m)^ExecStart=.*$`).ReplaceAllString(read(t, strings.TrimPrefix(u, root+"/")), "ExecStart=/bin/true")
		copied := filepath.Join(t.TempDir(), filepath.Base(u))
		if err := os.WriteFile(copied, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", copied).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", filepath.Base(u), err, out)
		}
	}
}
