package sandbox_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	"leadpipe/internal/natstest"
	"leadpipe/internal/sandbox"
)

// serve starts the page of a sandbox and gives its URL.
func serve(t *testing.T, s *sandbox.Sandbox) string {
	t.Helper()
	addr := natstest.Addr(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Page(ctx, addr) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Page: %v", err)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if res, err := http.Get("http://" + addr + "/"); err == nil {
			_ = res.Body.Close()
			return "http://" + addr
		}
		if time.Now().After(deadline) {
			t.Fatal("the page is not served")
		}
	}
}

// TestPanelCommands: each action gives a command, and where the nats CLI is installed the
// command shows what it says.
func TestPanelCommands(t *testing.T) {
	t.Parallel()
	s, _ := start(t)
	base := serve(t, s)
	who := ""
	do := func(action string, fields ...string) {
		t.Helper()
		form := url.Values{"who": {who}}
		for i := 0; i < len(fields); i += 2 {
			form.Set(fields[i], fields[i+1])
		}
		res, err := http.PostForm(base+"/panel/do/"+action, form)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		var answer struct{ Command, Error string }
		if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || res.StatusCode != http.StatusOK || !strings.HasPrefix(answer.Command, "nats --server nats://operator:") {
			t.Fatalf("%s: %d %+v, %v", action, res.StatusCode, answer, err)
		}
		settle(t, s)
		if _, err := exec.LookPath("nats"); err != nil {
			return
		}
		if out, err := exec.CommandContext(t.Context(), "sh", "-c", answer.Command).CombinedOutput(); err != nil {
			t.Errorf("%s: %s: %v\n%s", action, answer.Command, err, out)
		}
	}
	do("lead", "name", "Léa Petit", "phone", "06 39 98 01 50")
	var scene struct{ People []struct{ ID string } }
	res, err := http.Get(base + "/panel/state")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if err := json.NewDecoder(res.Body).Decode(&scene); err != nil || len(scene.People) != 1 {
		t.Fatalf("%+v, %v", scene, err)
	}
	who = scene.People[0].ID
	do("pay")
	do("change")
	do("fail", "times", "2")
	do("payagain")
	do("text", "body", "STOP")
	do("again")
	do("backwards")
	do("consumer", "name", "blacklist", "on", "false")
	do("consumer", "name", "blacklist", "on", "true")
	for _, vendor := range []string{"Meta", "Twilio", "Google"} {
		do("provider", "name", vendor, "on", "false")
		do("provider", "name", vendor, "on", "true")
	}
	do("cancel")
	if _, err := exec.LookPath("nats"); err != nil {
		t.Log("no nats CLI here: the commands were not run")
	}
}

// settle waits until the pipeline has nothing left to do.
func settle(t *testing.T, s *sandbox.Sandbox) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); s.Busy(t.Context()); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the pipeline does not come to rest")
		}
	}
}
