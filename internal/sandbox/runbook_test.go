package sandbox_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/daemon/consumersd"
	"leadpipe/internal/natstest"
	"leadpipe/internal/sandbox"
	"leadpipe/internal/sandbox/twilio"
)

// TestRunbook does what docs/operate.md says, line by line and in its order, with the
// real nats CLI, the edge, and consumers in a process of their own. Only addresses are
// others.
func TestRunbook(t *testing.T) {
	t.Parallel()
	needs(t, "sh", "go", "make")
	o := newOperation(t)
	ran := 0
	for _, b := range blocks(t) {
		if b.page != "operate.md" {
			continue
		}
		ran++
		switch {
		case strings.HasPrefix(b.text, "nats sub "), strings.HasPrefix(b.text, "nats kv watch "):
			o.follow(b.text, "1234567890123456")
		case strings.HasPrefix(b.text, "consumers billing sms"):
			o.follow(b.text, `"msg":"consumers run"`)
		case strings.Contains(b.text, "nats stream rm "):
			before := o.keys()
			o.stopConsumers()
			o.do(b.text)
			if after := o.keys(); !slices.Equal(before, after) {
				t.Errorf("before the restore the bucket had %q, then %q", before, after)
			}
			o.startConsumers()
		default:
			o.do(b.text)
		}
	}
	if ran < 18 {
		t.Errorf("the page has %d blocks", ran)
	}
	for _, stream := range []string{contracts.StreamCRM, contracts.StreamWebhooks} {
		// A restored durable is there once its own group has a leader.
		o.await(stream+" is on the cluster whole", func() bool {
			s, err := o.cluster.JetStream("operator").Stream(t.Context(), stream)
			if err != nil {
				return false
			}
			i := s.CachedInfo()
			return i.Config.Replicas == 3 && i.State.Msgs > 0 && i.State.Consumers >= 3
		})
	}
}

// An operation is a pipeline and its operator's shell.
type operation struct {
	*sandbox.Sandbox
	t         *testing.T
	cluster   *natstest.Server // to move to
	dir       string           // where the operator stands
	env       []string
	addresses *strings.Replacer // of the page, to those of here

	consumers *exec.Cmd
	log       *logged
}

func newOperation(t *testing.T) *operation {
	t.Helper()
	o := &operation{t: t, dir: t.TempDir(), log: &logged{}}
	bin := filepath.Join(o.dir, "bin")
	for _, tool := range []struct{ in, pkg string }{{"", "leadpipe/cmd/consumers"}, {"internal/tools/nats", "github.com/nats-io/natscli/nats"}} {
		build := exec.CommandContext(t.Context(), "go", "build", "-o", bin+string(filepath.Separator), tool.pkg)
		build.Dir = natstest.Root(t, tool.in)
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v\n%s", tool.pkg, err, out)
		}
	}
	for _, name := range []string{"Makefile", "streams"} {
		if err := os.Symlink(natstest.Root(t, name), filepath.Join(o.dir, name)); err != nil {
			t.Fatal(err)
		}
	}

	var cfg consumersd.Config
	s, _ := startWith(t, func(o *sandbox.Options) {
		o.NATSPort, o.Latency, o.Without = natstest.Port(t), time.Millisecond, consumersd.Without()
		o.Consumers = func(c *consumersd.Config) { cfg = *c }
	})
	o.Sandbox = s
	o.cluster = natstest.New(t, natstest.Cluster, natstest.Bare, natstest.LazySync)
	o.addresses = strings.NewReplacer("nats://operator:operator@127.0.0.1:4222", s.NATS.UserURL("operator"),
		"nats://operator:operator@127.0.0.1:4223", o.cluster.URL("operator"))
	o.env = append(os.Environ(), "PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"), "HOME="+o.dir, "NATS_URL="+s.NATS.UserURL("operator"),
		"PUBLIC_URL="+cfg.PublicURL, "METRICS_ADDR=127.0.0.1:0", "CONSOLE_ADDR=",
		"FACEBOOK_APP_SECRET="+sandbox.AppSecret, "FACEBOOK_PAGE_ACCESS_TOKEN="+sandbox.PageToken, "FACEBOOK_GRAPH_URL="+cfg.GraphURL,
		"TWILIO_ACCOUNT_SID="+sandbox.TwilioAccount, "TWILIO_AUTH_TOKEN="+sandbox.TwilioToken, "TWILIO_MESSAGING_SERVICE_SID="+sandbox.TwilioService,
		"TWILIO_API_URL="+cfg.TwilioURL, "TWILIO_CONSENT=true", "GOOGLE_SHEETS_ID="+sandbox.SheetID, "GOOGLE_APPLICATION_CREDENTIALS="+cfg.SheetsCredentials,
		"GOOGLE_SHEETS_URL="+cfg.SheetsURL)
	o.startConsumers()
	t.Cleanup(o.stopConsumers)

	// The lead and the customer of contracts/, whom the page asks for.
	s.AddDemoLead()
	for _, file := range []string{"facebook_leadgen.json", "stripe_checkout_session_completed.json", "stripe_subscription_created.json",
		"stripe_payment_succeeded.json", "stripe_payment_failed.json"} {
		if _, status, err := s.SendExample(t.Context(), file); err != nil || status != 200 {
			t.Fatalf("%s: %d, %v", file, status, err)
		}
	}
	// And a number whose words a person has to judge.
	if _, err := s.Twilio.Inbound(t.Context(), twilio.Inbound{From: "+33639980178", Body: "Cancel my order please"}); err != nil {
		t.Fatal(err)
	}
	o.await("an incident is open", func() bool { return strings.Contains(o.read("index.incidents"), "optouts-unclear-") })
	o.await("the lead is a client", func() bool { return strings.Contains(o.read("lead.1234567890123456"), `"customer_id":"cus_`) })
	return o
}

func (o *operation) await(what string, ok func() bool) {
	o.t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			o.t.Fatalf("still not so after a minute: %s\n%s", what, o.log)
		}
	}
}

func (o *operation) read(key string) string {
	kv, err := o.JS.KeyValue(o.t.Context(), contracts.Bucket)
	if err != nil {
		return ""
	}
	e, err := kv.Get(o.t.Context(), key)
	if err != nil {
		return ""
	}
	return string(e.Value())
}

func (o *operation) keys() []string {
	o.t.Helper()
	kv, err := o.JS.KeyValue(o.t.Context(), contracts.Bucket)
	if err != nil {
		o.t.Fatal(err)
	}
	keys, err := kv.Keys(o.t.Context())
	if err != nil {
		o.t.Fatal(err)
	}
	slices.Sort(keys)
	return keys
}

func (o *operation) startConsumers() {
	o.t.Helper()
	o.consumers = exec.Command(filepath.Join(o.dir, "bin", "consumers"))
	o.consumers.Env, o.consumers.Stderr = o.env, o.log
	if err := o.consumers.Start(); err != nil {
		o.t.Fatal(err)
	}
}

func (o *operation) stopConsumers() {
	if o.consumers == nil {
		return
	}
	_ = o.consumers.Process.Signal(syscall.SIGTERM)
	if err := o.consumers.Wait(); err != nil {
		o.t.Errorf("consumers: %v\n%s", err, o.log)
	}
	o.consumers = nil
}

// do runs lines that come to an end, and have to succeed, one after the other.
func (o *operation) do(text string) {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(o.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-eu", "-c", o.addresses.Replace(text))
	cmd.Dir, cmd.Env = o.dir, o.env
	if out, err := cmd.CombinedOutput(); err != nil {
		o.t.Errorf("%s\n%v\n%s\n%s", text, err, out, o.log)
	}
}

// follow runs a line that goes on until Ctrl-C, while webhooks come, and waits for a word
// of its output.
func (o *operation) follow(text, want string) {
	o.t.Helper()
	var out logged
	cmd := exec.Command("sh", "-eu", "-c", "exec "+text)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = o.dir, o.env, &out, &out
	if err := cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	o.await(text+" shows "+want, func() bool {
		// A text that comes in again: the same webhook, which nothing changes for.
		_, _, err := o.SendExample(o.t.Context(), "facebook_leadgen.json")
		if err != nil {
			o.t.Fatal(err)
		}
		if strings.Contains(text, "kv watch") {
			_, _ = o.JS.Publish(o.t.Context(), contracts.SubjectOfKey("lead.1234567890123456"), []byte(o.read("lead.1234567890123456")))
		}
		return strings.Contains(out.String(), want)
	})
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait() // how a client says that it was interrupted is its own
}
