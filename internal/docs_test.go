package internal_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
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

// TestInterfaceListsStripesEventTypes: the page has the list that the program goes by.
func TestInterfaceListsStripesEventTypes(t *testing.T) {
	t.Parallel()
	page := read(t, "docs/interface.md")
	list := read(t, "contracts/subjects.go")
	list = list[strings.Index(list, "func StripeEventTypes"):]
	types := regexp.MustCompile(`"([a-z_.]+)"`).FindAllStringSubmatch(list, -1)
	if len(types) < 15 {
		t.Fatalf("%d types", len(types))
	}
	for _, m := range types {
		if !strings.Contains(page, "`"+m[1]+"`") {
			t.Errorf("docs/interface.md does not list %s", m[1])
		}
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
