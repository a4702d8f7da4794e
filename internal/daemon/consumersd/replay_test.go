package consumersd

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
	"leadpipe/internal/daemon"
	"leadpipe/internal/sandbox/stripe"
)

// live runs a durable as the program does, until the test ends.
func (c *shell) live(durable string) {
	c.t.Helper()
	cfg, err := daemon.Defaults[Config]()
	if err != nil {
		c.t.Fatal(err)
	}
	cfg.URL, cfg.Metrics, cfg.ConsoleAddr = c.URL("consumers"), "127.0.0.1:0", ""
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg, []string{durable}, slog.New(slog.DiscardHandler)) }()
	c.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			c.t.Errorf("%s: %v", durable, err)
		}
	})
}

// subscribed stores the event of a subscription of a customer's, as the edge does.
func (c *shell) subscribed(customer string) uint64 {
	c.t.Helper()
	now := time.Now().UTC().Truncate(time.Second)
	sub := stripe.Subscription{ID: "sub_" + customer, Customer: "cus_" + customer, Status: "active", Price: "price_1", Product: "prod_1", Amount: 2900,
		Currency: "eur", Created: now, PeriodStart: now, PeriodEnd: now.AddDate(0, 1, 0)}
	e := stripe.Event{ID: "evt_" + customer, Type: "customer.subscription.created", Version: stripe.V20231016, Created: now, Object: sub.Render(stripe.V20231016), Live: true}
	ack, err := c.edge.Publish(c.t.Context(), contracts.SubjectStripe(e.Type), e.JSON(), jetstream.WithMsgID(contracts.MessageIDStripe(e.ID)))
	if err != nil {
		c.t.Fatal(err)
	}
	return ack.Sequence
}

func (c *shell) until(what string, ok func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatal("still not " + what)
		}
	}
}

func (c *shell) has(key string) bool {
	ok, err := c.store.Get(context.Background(), key, &map[string]any{})
	if err != nil {
		c.t.Fatal(err)
	}
	return ok
}

func (c *shell) incident(id string) (i contracts.Incident, ok bool) {
	ok, err := c.store.Get(context.Background(), contracts.KeyIncident(id), &i)
	if err != nil {
		c.t.Fatal(err)
	}
	return i, ok
}

func (c *shell) durable(name string) jetstream.ConsumerInfo {
	c.t.Helper()
	d, err := c.JetStream("operator").Consumer(c.t.Context(), contracts.StreamWebhooks, name)
	if err != nil {
		c.t.Fatal(err)
	}
	return *d.CachedInfo()
}

// A message fails since a record is not readable; the record is mended; the replay
// closes the incident, and the durable stays where it is.
func TestReplayClosesTheIncident(t *testing.T) {
	c := newShell(t)
	c.want(0, "stays where it is", "replay", "-h")
	for _, wrong := range [][]string{{"billing"}, {"nobody", "1"}, {"billing", "0"}, {"billing", "x"}, {"billing", "5-4"}, {"billing", "1-2-3"}, {"billing", "-1"}} {
		c.want(2, "consumers replay", append([]string{"replay"}, wrong...)...)
	}
	c.want(1, "FACEBOOK_PAGE_ACCESS_TOKEN is not set", "replay", "leads", "1")
	c.want(1, "no message of billing is there", "replay", "billing", "1")

	kv, err := c.JetStream("operator").KeyValue(t.Context(), contracts.Bucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.PutString(t.Context(), contracts.KeySubscription("sub_a"), "{"); err != nil {
		t.Fatal(err)
	}
	c.live(contracts.Billing)
	bad, good := c.subscribed("a"), c.subscribed("b")
	id := fmt.Sprintf("billing-%d", bad)
	c.until("given up", func() bool { _, ok := c.incident(id); return ok && c.has(contracts.KeySubscription("sub_b")) })
	c.until("settled", func() bool { return c.durable(contracts.Billing).AckFloor.Stream == good })
	before := c.durable(contracts.Billing)

	c.want(1, "is not readable", "replay", "billing", fmt.Sprint(bad))
	if i, _ := c.incident(id); !i.ResolvedAt.IsZero() || i.Count != 1 {
		t.Errorf("after a replay that failed too: %+v", i)
	}
	if err := kv.Delete(t.Context(), contracts.KeySubscription("sub_a")); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := c.run("replay", "--json", "billing", fmt.Sprintf("%d-%d", bad, good+100))
	var said replayed
	if err := json.Unmarshal([]byte(out), &said); err != nil || code != 0 || said.Messages != 2 || said.Done != 2 {
		t.Errorf("exit %d, %v: %s%s", code, err, out, errOut)
	}
	if i, _ := c.incident(id); i.ResolvedAt.IsZero() {
		t.Errorf("the incident is open: %+v", i)
	}
	if !c.has(contracts.KeySubscription("sub_a")) {
		t.Error("no record was made")
	}
	if after := c.durable(contracts.Billing); after.Delivered.Consumer != before.Delivered.Consumer || after.AckFloor.Stream != before.AckFloor.Stream {
		t.Errorf("the durable was moved: %+v, before %+v", after, before)
	}
}

// A failure that no retry can mend opens the incident, also of a message that its
// durable has not come to.
func TestReplayOpensAnIncident(t *testing.T) {
	c := newShell(t)
	ack, err := c.edge.Publish(t.Context(), contracts.SubjectStripe("invoice.paid"), []byte("{"))
	if err != nil {
		t.Fatal(err)
	}
	c.want(1, "permanent", "replay", "billing", fmt.Sprint(ack.Sequence))
	if i, ok := c.incident(fmt.Sprintf("billing-%d", ack.Sequence)); !ok || !i.ResolvedAt.IsZero() {
		t.Errorf("%v %+v", ok, i)
	}
}

// Live messages go through while many old ones are replayed.
func TestReplayHoldsNobodyUp(t *testing.T) {
	c := newShell(t)
	c.live(contracts.Billing)
	const old = 1500
	for i := range old {
		c.subscribed(fmt.Sprintf("old%d", i))
	}
	c.until("settled", func() bool { return c.durable(contracts.Billing).AckFloor.Stream == old })
	ended := make(chan int, 1)
	go func() {
		code, _, _ := c.run("replay", "billing", fmt.Sprintf("1-%d", old))
		ended <- code
	}()
	var longest time.Duration
	during := 0
	for i := 0; ; i++ {
		begin := time.Now()
		c.subscribed(fmt.Sprintf("new%d", i))
		c.until("handled", func() bool { return c.has(contracts.KeySubscription(fmt.Sprintf("sub_new%d", i))) })
		longest = max(longest, time.Since(begin))
		select {
		case code := <-ended:
			if code != 0 {
				t.Errorf("exit %d", code)
			}
			t.Logf("%d live messages meanwhile, the slowest after %v", during, longest)
			if during == 0 || longest > 2*time.Second {
				t.Errorf("%d live messages went through meanwhile, the slowest after %v", during, longest)
			}
			return
		default:
			during++
		}
	}
}
