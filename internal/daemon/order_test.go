package daemon_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/daemon"
	"leadpipe/internal/daemon/consumersd"
	"leadpipe/internal/daemon/edged"
	"leadpipe/internal/natstest"
	"leadpipe/internal/webhook/stripe"
)

// The server, the edge and the consumers may start in any order, on a store where nothing
// has been created yet: the first webhook becomes a record.
func TestAnyOrderOfStarting(t *testing.T) {
	t.Parallel()
	for _, order := range [][]string{
		{"server", "edge", "consumers"}, {"server", "consumers", "edge"}, {"edge", "server", "consumers"},
		{"edge", "consumers", "server"}, {"consumers", "server", "edge"}, {"consumers", "edge", "server"},
	} {
		t.Run(strings.Join(order, ","), func(t *testing.T) {
			t.Parallel()
			s := natstest.New(t, natstest.Bare, natstest.LazySync)
			s.Nodes[0].Stop() // it has a port now
			p := programs{t: t, server: s, edge: natstest.Addr(t), metrics: natstest.Addr(t)}
			for _, name := range order {
				p.start(name)
			}
			p.await("a webhook is taken", func() bool { return p.post() == http.StatusOK })
			js := s.JetStream("operator")
			p.await("the customer has a record", func() bool {
				kv, err := js.KeyValue(t.Context(), contracts.Bucket)
				if err != nil {
					return false
				}
				_, err = kv.Get(t.Context(), contracts.KeyCustomer("cus_1"))
				return err == nil
			})
			var names []string
			for name := range js.StreamNames(t.Context()).Name() {
				names = append(names, name)
			}
			slices.Sort(names)
			if want := []string{contracts.StreamCRM, contracts.StreamWebhooks}; !slices.Equal(names, want) {
				t.Errorf("streams %q, not %q", names, want)
			}
		})
	}
}

// programs are those of one test, each within this process.
type programs struct {
	t             *testing.T
	server        *natstest.Server
	edge, metrics string // addresses
}

// start starts one of them. The server is there at once; the two others are once they
// listen, whether or not there is a server.
func (p programs) start(name string) {
	p.t.Helper()
	log := daemon.NewLogger(io.Discard)
	switch name {
	case "server":
		p.server.Start(0)
	case "edge":
		cfg := defaults[edged.Config](p.t)
		cfg.URL, cfg.Addr, cfg.PublicURL, cfg.StripeSecrets = p.server.Nodes[0].URL(), p.edge, "http://"+p.edge, daemon.Secrets{"whsec_1"}
		p.run(func(ctx context.Context) error { return edged.Run(ctx, cfg, nil, log) })
		p.await("the edge listens", func() bool { return answers("http://" + p.edge + "/healthz") })
	case "consumers":
		cfg := defaults[consumersd.Config](p.t)
		cfg.URL, cfg.Metrics, cfg.ConsoleAddr = p.server.Nodes[0].URL(), p.metrics, ""
		p.run(func(ctx context.Context) error { return consumersd.Run(ctx, cfg, []string{contracts.Billing}, log) })
		p.await("the consumers listen", func() bool { return answers("http://" + p.metrics + "/healthz") })
	}
}

func defaults[C any](t *testing.T) C {
	t.Helper()
	cfg, err := daemon.Defaults[C]()
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// run runs a program until the test ends.
func (p programs) run(program func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- program(ctx) }()
	p.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			p.t.Errorf("a program ended with %v", err)
		}
	})
}

func (p programs) await(what string, ok func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("still not so after a minute: %s", what)
		}
	}
}

func answers(url string) bool {
	res, err := http.Get(url)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// post sends the webhook of a new customer.
func (p programs) post() int {
	p.t.Helper()
	body := []byte(`{"id":"evt_1","object":"event","type":"customer.created","created":1770000000,"livemode":true,` +
		`"data":{"object":{"id":"cus_1","object":"customer","email":"lea@example.com","created":1770000000}}}`)
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, "http://"+p.edge+"/api/webhooks/stripe", bytes.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Stripe-Signature", stripe.Sign(body, time.Now(), "whsec_1"))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	_ = res.Body.Close()
	return res.StatusCode
}
