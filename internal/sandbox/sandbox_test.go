package sandbox_test

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
	"leadpipe/contracts/contractstest"
	"leadpipe/internal/bus"
	"leadpipe/internal/daemon"
	"leadpipe/internal/natstest"
	"leadpipe/internal/sandbox"
)

// start starts a whole pipeline and gives what its programs log.
func start(t *testing.T, without ...string) (*sandbox.Sandbox, *logged) {
	t.Helper()
	return startWith(t, func(o *sandbox.Options) { o.Without = without })
}

// startWith is start with other options.
func startWith(t *testing.T, change func(*sandbox.Options)) (*sandbox.Sandbox, *logged) {
	t.Helper()
	log := &logged{}
	o := sandbox.Options{Dir: t.TempDir(), NATSConf: natstest.Root(t, "nats.conf"), NATSPort: -1,
		EdgeAddr: "127.0.0.1:0", Latency: 20 * time.Millisecond, Hurry: true, Log: daemon.NewLogger(log)}
	change(&o)
	s, err := sandbox.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if t.Failed() {
			t.Log(log.String())
		}
	})
	return s, log
}

// logged takes what programs print, while it is read.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func lastSequence(t *testing.T, s *sandbox.Sandbox, stream string) uint64 {
	t.Helper()
	st, err := s.JS.Stream(context.Background(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return st.CachedInfo().State.LastSeq
}

// TestDemo is `make demo`, and then what an operator may do to it at any time.
func TestDemo(t *testing.T) {
	t.Parallel()
	s, log := start(t)
	var out bytes.Buffer
	if err := s.Demo(t.Context(), &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"webhooks.facebook.leadgen", "sms.welcome.1234567890123456", "8 webhooks, 3 SMS, 1 on the block list"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the demo does not show %q:\n%s", want, out.String())
		}
	}

	// What travelled and what is kept is as the schemas say.
	webhooks, err := s.JS.Stream(t.Context(), contracts.StreamWebhooks)
	if err != nil {
		t.Fatal(err)
	}
	for seq := uint64(1); seq <= lastSequence(t, s, contracts.StreamWebhooks); seq++ {
		m, err := webhooks.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		contractstest.Webhook(t, m.Subject, m.Data)
		for _, h := range []string{contracts.HeaderSpecVersion, contracts.HeaderID, contracts.HeaderSource, contracts.HeaderType, contracts.HeaderTime, contracts.HeaderSubject, jetstream.MsgIDHeader} {
			if m.Header.Get(h) == "" {
				t.Errorf("%s has no %s", m.Subject, h)
			}
		}
	}
	records := 0
	if err := bus.Scan(t.Context(), s.JS, func(string) bool { return true }, func(m contracts.Message) error {
		records++
		contractstest.Record(t, contracts.KeyOfSubject(m.Subject), m.Data)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if records < 9 {
		t.Errorf("%d records", records)
	}

	// Deliver every example again, and replay everything from the beginning: no record
	// is written and no text is sent.
	before, texts := lastSequence(t, s, contracts.StreamCRM), s.Twilio.Calls()
	for durable, stream := range map[string]string{"billing": "WEBHOOKS", "leads": "WEBHOOKS", "optouts": "WEBHOOKS", "sms": "KV_crm", "sheets": "KV_crm"} {
		st, err := s.JS.Stream(t.Context(), stream)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.ResetConsumerToSequence(t.Context(), durable, 1); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	for s.Busy(t.Context()) {
		if time.Now().After(deadline) {
			t.Fatal("the replay does not end")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if after := lastSequence(t, s, contracts.StreamCRM); after != before {
		t.Errorf("the replay wrote %d records", after-before)
	}
	if n := len(s.Twilio.Calls()); n != len(texts) {
		t.Errorf("the replay made %d calls to Twilio", n-len(texts))
	}

	for _, secret := range []string{"33639980102", "camille@example", sandbox.TwilioToken, sandbox.AppSecret, sandbox.StripeSecret, "merci pour votre demande"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log shows %q", secret)
		}
	}
}

func TestDemoFailsWhenAnEffectIsMissing(t *testing.T) {
	t.Parallel()
	s, _ := start(t, "blacklist")
	s.Wait = 3 * time.Second
	err := s.Demo(t.Context(), &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "block list") {
		t.Errorf("without the block list: %v", err)
	}
}
