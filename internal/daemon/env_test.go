package daemon_test

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"leadpipe/internal/daemon"
	"leadpipe/internal/daemon/consumersd"
	"leadpipe/internal/daemon/edged"
)

// TestEnvExampleHasWhatHelpLists compares .env.example with -h of both programs, and
// each default that it shows with the program's.
func TestEnvExampleHasWhatHelpLists(t *testing.T) {
	t.Parallel()
	var help bytes.Buffer
	if err := daemon.Usage[edged.Config](&help, "edge"); err != nil {
		t.Fatal(err)
	}
	if err := daemon.Usage[consumersd.Config](&help, "consumers"); err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{} // the rest of its line
	for _, m := range regexp.MustCompile(`(?m)^([A-Z][A-Z_]+)  +(.*)$`).FindAllStringSubmatch(help.String(), -1) {
		if m[1] != "VARIABLE" {
			listed[m[1]] = m[2]
		}
	}
	if len(listed) < 40 {
		t.Fatalf("-h lists %d variables", len(listed))
	}
	example, err := os.ReadFile("../../.env.example")
	if err != nil {
		t.Fatal(err)
	}
	var shown []string
	for _, m := range regexp.MustCompile(`(?m)^(#?)([A-Z][A-Z_]+)=(.*)$`).FindAllStringSubmatch(string(example), -1) {
		commented, name, value := m[1] == "#", m[2], strings.Trim(m[3], `"`)
		if slices.Contains(shown, name) {
			t.Errorf(".env.example shows %s twice", name)
		}
		shown = append(shown, name)
		line, ok := listed[name]
		if !ok {
			t.Errorf(".env.example shows %s, which neither program has", name)
		}
		// Examples of what has no default say so by an e.g. or an ellipsis.
		if commented && value != "" && !strings.Contains(line, value) && !strings.Contains(line, "e.g.") && !strings.Contains(value, "…") && name != "NATS_URL" {
			t.Errorf(".env.example shows %s=%s, -h says: %s", name, value, line)
		}
	}
	for name := range listed {
		if !slices.Contains(shown, name) {
			t.Errorf(".env.example lacks %s", name)
		}
	}
}
