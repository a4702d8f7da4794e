package consumersd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
	"leadpipe/internal/consent"
	"leadpipe/internal/natstest"
	"leadpipe/internal/state"
)

// shell runs commands against a server, as a shell does.
type shell struct {
	t *testing.T
	*natstest.Server
	store *state.Store
	edge  jetstream.JetStream
}

func newShell(t *testing.T) *shell {
	s := natstest.New(t, natstest.LazySync)
	t.Setenv("NATS_URL", s.URL("consumers")) // the command puts its own user in
	return &shell{t, s, state.New(s.JetStream("consumers"), nil), s.JetStream("edge")}
}

// run gives the exit code and what was printed.
func (c *shell) run(args ...string) (code int, out, errOut string) {
	c.t.Helper()
	for _, cmd := range commands() {
		if cmd.name == args[0] {
			var o, e bytes.Buffer
			code = cmd.main(args[1:], strings.NewReader(""), &o, &e)
			return code, o.String(), e.String()
		}
	}
	c.t.Fatalf("no command %s", args[0])
	return 0, "", ""
}

func (c *shell) want(code int, said string, args ...string) {
	c.t.Helper()
	got, out, errOut := c.run(args...)
	if got != code || !strings.Contains(out+errOut, said) {
		c.t.Errorf("%v: exit %d, %s%s; want %d, %q", args, got, out, errOut, code, said)
	}
	if strings.Count(errOut, "\n") > 1 {
		c.t.Errorf("%v: more than a line: %s", args, errOut)
	}
}

func (c *shell) out() bool {
	c.t.Helper()
	out := false
	if err := c.store.Update(c.t.Context(), func(tx *state.Tx) (err error) {
		out, err = consent.Out(tx, "33639980102")
		return err
	}); err != nil {
		c.t.Fatal(err)
	}
	return out
}

// stopped stores a STOP as the edge does, which no consumer has processed yet.
func (c *shell) stopped(at time.Time) {
	c.t.Helper()
	m := nats.NewMsg(contracts.SubjectOptOut("33639980102"))
	m.Header.Set(contracts.HeaderTime, at.Format(time.RFC3339Nano))
	m.Data = []byte(`{}`)
	if _, err := c.JetStream("edge").PublishMsg(context.Background(), m); err != nil {
		c.t.Fatal(err)
	}
}

func TestConsentCommands(t *testing.T) {
	c := newShell(t)
	c.want(0, "--request", "opt-in", "-h")
	c.want(2, "usage: consumers opt-out PHONE", "opt-out")
	c.want(2, "usage", "opt-out", "0639980102", "0639980103")
	c.want(2, "-what", "opt-out", "-what", "0639980102")
	c.want(2, "unreadable", "opt-out", "hello")
	c.want(1, "has not opted out", "opt-in", "0639980102", "--yes")

	c.want(0, "opted out", "opt-out", "06 39 98 01 02")
	if !c.out() {
		t.Error("not opted out")
	}
	c.want(1, "say --yes", "opt-in", "0639980102")
	if !c.out() {
		t.Error("opted in without an answer")
	}
	c.want(0, "This undoes the opt-out", "opt-in", "--yes", "0639980102")
	if c.out() {
		t.Error("not opted in")
	}
	code, out, _ := c.run("opt-out", "--json", "+33639980102")
	var s consent.Standing
	if err := json.Unmarshal([]byte(out), &s); code != 0 || err != nil || !s.Out || len(s.History) != 3 {
		t.Errorf("exit %d, %v: %s", code, err, out)
	}
	// A STOP that nobody has processed yet is newer than the request.
	c.stopped(time.Now())
	c.want(1, "opted out after the request", "opt-in", "0639980102", "--yes", "--request", time.Now().Add(-time.Hour).UTC().Format(time.RFC3339))
	c.want(2, "not a time", "opt-in", "0639980102", "--request", "yesterday")
	c.want(0, "no opt-out", "no-opt-out", "0639980102")
	if !c.out() {
		t.Error("no-opt-out has undone an opt-out")
	}
}

// A server that is not there, or does not know the operator, is one line.
func TestCommandWithoutAServer(t *testing.T) {
	for name, url := range map[string]string{"nobody listens": "nats://127.0.0.1:1", "another password": ""} {
		t.Run(name, func(t *testing.T) {
			c := newShell(t)
			if url != "" {
				t.Setenv("NATS_URL", url)
			}
			t.Setenv("NATS_OPERATOR_PASSWORD", "wrong"+fmt.Sprint(len(name)))
			c.want(1, "connecting to NATS as operator", "opt-out", "0639980102")
		})
	}
}
