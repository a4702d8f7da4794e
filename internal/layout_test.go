// Package internal_test holds the rules on who may import whom.
package internal_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// deps lists what a package links, of this module without the module's name.
func deps(t *testing.T, pkg string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "./"+pkg)
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -deps %s: %v", pkg, err)
	}
	var all []string
	for _, p := range strings.Fields(string(out)) {
		// The standard library has an internal/ of its own; its packages have no dot.
		if own, ok := strings.CutPrefix(p, "leadpipe/"); ok {
			p = own
		} else if !strings.Contains(p, ".") {
			continue
		}
		all = append(all, p)
	}
	return all
}

func TestWhoMayImportWhom(t *testing.T) {
	t.Parallel()
	domains := []string{"internal/billing", "internal/leads", "internal/optouts", "internal/sms", "internal/blacklist", "internal/sheets"}
	const (
		bus, edge, webhook = "internal/bus", "internal/edge", "internal/webhook"
		server             = "github.com/nats-io/nats-server"
	)
	type rule struct {
		pkg   string
		never []string // prefixes
	}
	rules := []rule{
		{"contracts", []string{"internal", "streams", "github.com", "golang.org", "google.golang.org"}},
		{"internal/freeport", []string{"internal", "contracts", "github.com"}},
		{"internal/outcome", []string{"contracts", "streams", "github.com", "golang.org"}},
		{"internal/webhook/stripe", append([]string{bus, edge, "internal/state", "github.com/nats-io"}, domains...)},
		{"internal/webhook/facebook", append([]string{bus, edge, "internal/state", "github.com/nats-io"}, domains...)},
		{"internal/webhook/twilio", append([]string{bus, edge, "internal/state", "github.com/nats-io"}, domains...)},
		{"internal/edge", append([]string{bus, "internal/state", "github.com/nats-io"}, domains...)},
		{"cmd/edge", append([]string{"google.golang.org/api", "github.com/twilio/twilio-go/rest"}, domains...)},
		{"internal/console", append([]string{bus, edge, webhook, server, "internal/daemon", "internal/sandbox", "internal/state"}, domains...)},
		{"cmd/consumers", []string{webhook, edge, server, "internal/sandbox"}},
	}
	for _, d := range domains {
		others := slices.DeleteFunc(slices.Clone(domains), func(o string) bool { return o == d })
		rules = append(rules, rule{d, append([]string{bus, edge, webhook, server, "internal/sandbox", "internal/daemon"}, others...)})
	}
	for _, r := range rules {
		t.Run(r.pkg, func(t *testing.T) {
			t.Parallel()
			for _, d := range deps(t, r.pkg) {
				if d == r.pkg {
					continue
				}
				for _, never := range r.never {
					if d == never || strings.HasPrefix(d, never+"/") {
						t.Errorf("%s links %s", r.pkg, d)
					}
				}
			}
		})
	}
}
