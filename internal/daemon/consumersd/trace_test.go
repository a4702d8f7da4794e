package consumersd

import (
	"encoding/json"
	"strings"
	"testing"

	"leadpipe/internal/trace"
)

func TestTraceCommand(t *testing.T) {
	c := newShell(t)
	c.want(0, "Twilio SID", "trace", "-h")
	c.want(2, "usage: consumers trace ID", "trace")
	c.want(2, "not a phone", "trace", "hello")
	c.want(1, "nothing is known of this customer", "trace", "cus_1")
	c.want(0, "opted out", "opt-out", "0639980102")
	code, out, errOut := c.run("trace", "06 39 98 01 02")
	if code != 0 || errOut != "" {
		t.Fatalf("exit %d: %s", code, errOut)
	}
	for _, want := range []string{"phone +33639980102", "optout.33639980102: opted out", "by operator"} {
		if !strings.Contains(out, want) {
			t.Errorf("lacks %q:\n%s", want, out)
		}
	}
	code, out, _ = c.run("trace", "--json", "+33639980102")
	var s trace.Story
	if err := json.Unmarshal([]byte(out), &s); code != 0 || err != nil || len(s.Steps) < 2 || s.Kind != trace.Phone {
		t.Errorf("exit %d, %v: %s", code, err, out)
	}
}

func TestPrintable(t *testing.T) {
	t.Parallel()
	if got := printable("\x1b[2Jé\u202eSTOP 👍\n"); got != "\uFFFD[2Jé\uFFFDSTOP 👍\uFFFD" {
		t.Errorf("%q", got)
	}
}

// The console's search is the same story, with the rights of the consumers.
func TestSearchOfTheConsole(t *testing.T) {
	c := newShell(t)
	c.want(0, "opted out", "opt-out", "0639980102")
	steps, err := Search(c.JetStream("consumers"), "FR")(t.Context(), "0639980102")
	if err != nil || len(steps) < 2 {
		t.Errorf("%d steps, %v", len(steps), err)
	}
	if steps, err := Search(c.JetStream("consumers"), "FR")(t.Context(), "hello"); err != nil || len(steps) != 0 {
		t.Errorf("no id: %d steps, %v", len(steps), err)
	}
}
