package daemon_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"leadpipe/internal/daemon"
	"leadpipe/internal/daemon/consumersd"
	"leadpipe/internal/daemon/edged"
)

// TestEveryVariableIsDocumented: what -h lists is in docs/interface.md.
func TestEveryVariableIsDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "interface.md"))
	if err != nil {
		t.Fatal(err)
	}
	for program, usage := range map[string]func(*bytes.Buffer) error{
		"edge":      func(b *bytes.Buffer) error { return daemon.Usage[edged.Config](b, "edge") },
		"consumers": func(b *bytes.Buffer) error { return daemon.Usage[consumersd.Config](b, "consumers") },
	} {
		var help bytes.Buffer
		if err := usage(&help); err != nil {
			t.Fatal(err)
		}
		_, table, _ := strings.Cut(help.String(), "VARIABLE")
		listed := 0
		for line := range strings.Lines(table) {
			name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			if name == "" || name != strings.ToUpper(name) || name == "TYPE" {
				continue
			}
			listed++
			if !bytes.Contains(page, []byte("`"+name+"`")) {
				t.Errorf("%s reads %s, which docs/interface.md does not have", program, name)
			}
		}
		if listed < 15 {
			t.Errorf("%s lists %d variables", program, listed)
		}
	}
}
