package sandbox_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"leadpipe/internal/alerttest"
	"leadpipe/internal/daemon"
	"leadpipe/internal/daemon/consumersd"
	"leadpipe/internal/natstest"
	"leadpipe/internal/sandbox"
	"leadpipe/internal/sandbox/twilio"
)

// An observed pipeline is one whose metrics a test reads.
type observed struct {
	*sandbox.Sandbox
	t         *testing.T
	log       *logged
	cfg       consumersd.Config
	metrics   string // of the consumers
	refusing  atomic.Bool
	losing    atomic.Bool
	stop      func()
	consumers alerttest.Scrape
	edge      alerttest.Scrape
}

func observe(t *testing.T) *observed {
	t.Helper()
	o := &observed{t: t}
	o.Sandbox, o.log = startWith(t, func(s *sandbox.Options) {
		s.Latency, s.Without = time.Millisecond, consumersd.Without()
		s.Consumers = func(c *consumersd.Config) { o.cfg = *c }
		s.Phones = func(p *twilio.Options) {
			p.Reject = func(string) (int, int) {
				if o.refusing.Load() {
					return 401, 20003
				}
				return 0, 0
			}
			p.Undelivered = func(string) int {
				if o.losing.Load() {
					return 30007
				}
				return 0
			}
		}
	})
	o.cfg.SheetsReads, o.cfg.SheetsWrites, o.cfg.SheetsGather = 600, 600, 100*time.Millisecond
	o.cfg.Metrics = natstest.Addr(t)
	o.metrics = "http://" + o.cfg.Metrics
	return o
}

// run runs the consumers of those durables; none: all.
func (o *observed) run(durables ...string) {
	o.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- consumersd.Run(ctx, o.cfg, durables, daemon.NewLogger(o.log)) }()
	o.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			o.t.Errorf("consumers: %v", err)
		}
		o.stop = func() {}
	}
	o.t.Cleanup(func() { o.stop() })
}

// await scrapes both programs until what they serve is as wanted.
func (o *observed) await(what string, ok func() bool) {
	o.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		o.edge, o.consumers = alerttest.Get(o.t, "edge", o.EdgeURL), alerttest.Get(o.t, "consumers", o.metrics)
		if ok() {
			return
		}
		if time.Now().After(deadline) {
			o.t.Fatalf("after a minute still not: %s\n%s", what, o.consumers.Text)
		}
	}
}

// sum adds up the values of a metric whose labels contain a part.
func sum(s alerttest.Scrape, metric, part string) (n float64) {
	for line := range strings.Lines(s.Text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if ok && strings.HasPrefix(name, metric+"{") && strings.Contains(name, part) {
			v, _ := strconv.ParseFloat(value, 64)
			n += v
		}
	}
	return n
}

func (o *observed) lead(n int) {
	o.t.Helper()
	if status, err := o.SendLead(o.t.Context(), fmt.Sprint("Zoé ", n), fmt.Sprintf("+336399%05d", 81000+n), ""); err != nil || status != 200 {
		o.t.Fatalf("%d, %v", status, err)
	}
}

// served lists the metrics that programs served, histograms by the names of their series.
func served(scrapes ...alerttest.Scrape) (names []string) {
	for _, s := range scrapes {
		for line := range strings.Lines(s.Text) {
			if fields := strings.Fields(line); len(fields) == 4 && fields[1] == "TYPE" {
				names = append(names, fields[2])
				if fields[3] == "histogram" {
					names = append(names, fields[2]+"_bucket", fields[2]+"_sum", fields[2]+"_count")
				}
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Each alert's cause is made to happen, and the alert seen to fire; while all is well none
// does. The alerts about the disk are seen by TestFullDisk.
func TestAlerts(t *testing.T) {
	t.Parallel()
	o := observe(t)
	o.run()
	o.AddDemoLead()
	for _, file := range []string{"facebook_leadgen.json", "stripe_checkout_session_completed.json", "stripe_subscription_created.json", "stripe_payment_succeeded.json"} {
		if _, status, err := o.SendExample(t.Context(), file); err != nil || status != 200 {
			t.Fatalf("%s: %d, %v", file, status, err)
		}
	}
	o.lead(0)
	if _, err := o.Twilio.Inbound(t.Context(), twilio.Inbound{From: "+33639981999", Body: "STOP"}); err != nil {
		t.Fatal(err)
	}
	o.await("all is done", func() bool {
		return sum(o.consumers, "sms_statuses_total", `status="delivered"`) >= 2 && sum(o.consumers, "consumer_oldest_seconds", "") == 0 &&
			sum(o.consumers, "sheets_rows_written_total", `"Opt-outs"`) > 0 && o.consumers.Value("sheets_lag_seconds") == "0"
	})
	well := []alerttest.Scrape{o.edge, o.consumers}
	fired := map[string]bool{"DiskNearlyFull": true, "StoreWasAtFault": true}
	// fires says that alerts fire, after a quiet time and some minutes of what is now.
	fires := func(minutes time.Duration, alerts []string, changes ...string) {
		t.Helper()
		var l alerttest.Timeline
		l.Hold(2*time.Minute, well...)
		l.Hold(minutes*time.Minute, o.edge, o.consumers)
		a := alerttest.Ask(t, l, nil, changes...)
		for _, name := range alerts {
			if fired[name] = true; !a.Fires(name) {
				t.Errorf("%s does not fire; %v do", name, a.Firing)
			}
		}
	}

	var quiet alerttest.Timeline
	quiet.Hold(30*time.Minute, well...)
	a := alerttest.Ask(t, quiet, nil)
	if len(a.Firing) > 0 {
		t.Errorf("all is well, and %v fire", a.Firing)
	}
	rules := a.Rules

	for range 6 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, o.EdgeURL+"/api/webhooks/stripe", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Stripe-Signature", "t=1,v1=00")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
	}
	if _, err := o.Twilio.Inbound(t.Context(), twilio.Inbound{From: "+33639981998", Body: "Cancel my order please"}); err != nil {
		t.Fatal(err)
	}
	o.await("an incident is open", func() bool { return o.consumers.Value("incidents_open") == "1" })
	fires(11, []string{"SignaturesRefused", "IncidentsOpen"})

	o.losing.Store(true)
	for n := range 6 {
		o.lead(10 + n)
	}
	o.await("texts are lost", func() bool { return sum(o.consumers, "sms_statuses_total", `status="undelivered"`) >= 6 })
	fires(3, []string{"TextsDoNotArrive"})
	o.losing.Store(false)

	o.refusing.Store(true)
	o.lead(20)
	o.await("Twilio refuses us", func() bool { return sum(o.consumers, "consumer_messages_total", `outcome="blocked"`) > 0 })
	fires(3, []string{"ProviderRefusesUs"})
	o.refusing.Store(false)
	o.stop()

	// Nobody works on billing, and what waits is measured all the same. Its age grows; the
	// five minutes are two seconds here.
	o.run("sms")
	if _, status, err := o.SendExample(t.Context(), "stripe_payment_failed.json"); err != nil || status != 200 {
		t.Fatalf("%d, %v", status, err)
	}
	o.await("billing waits", func() bool {
		return sum(o.consumers, "consumer_pending_messages", `"billing"`) == 1 && sum(o.consumers, "consumer_oldest_seconds", `"billing"`) > 2
	})
	fires(3, []string{"WorkWaits"}, "> 300", "> 2")
	before := sum(o.consumers, "consumer_oldest_seconds", `"billing"`)

	o.NATS.Kill()
	if _, status, _ := o.SendExample(t.Context(), "stripe_subscription_updated.json"); status != 503 {
		t.Errorf("without a server: %d", status)
	}
	o.await("the programs see that NATS is away", func() bool {
		return o.consumers.Value("nats_connected") == "0" && o.edge.Value("nats_connected") == "0"
	})
	fires(3, []string{"NatsAway", "WebhooksNotStored"})
	o.await("the age grows in an outage too", func() bool { return sum(o.consumers, "consumer_oldest_seconds", `"billing"`) > before+2 })
	o.stop()
	o.consumers = alerttest.Get(t, "consumers", o.metrics)
	fires(3, []string{"ProgramDown"})

	page, err := os.ReadFile(natstest.Root(t, "docs/operate.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if !fired[r.Alert] {
			t.Errorf("%s was not seen to fire", r.Alert)
		}
		heading, ok := strings.CutPrefix(r.Runbook, "docs/operate.md#")
		if !ok || !strings.Contains(strings.ToLower(string(page)), "\n### "+heading+"\n") {
			t.Errorf("%s: %q is not in docs/operate.md", r.Alert, r.Runbook)
		}
	}
}

var documented = regexp.MustCompile("(?m)^\\| `([a-z_]+)")

// Every metric that the programs serve is in the table of docs/interface.md and the reverse,
// and alerts and dashboards name no other.
func TestMetricsAreWhatIsDocumented(t *testing.T) {
	t.Parallel()
	o := observe(t)
	o.run()
	o.AddDemoLead()
	for _, file := range []string{"facebook_leadgen.json", "stripe_subscription_created.json", "stripe_payment_succeeded.json"} {
		if _, status, err := o.SendExample(t.Context(), file); err != nil || status != 200 {
			t.Fatalf("%s: %d, %v", file, status, err)
		}
	}
	if _, err := o.Twilio.Inbound(t.Context(), twilio.Inbound{From: "+33639981997", Body: "STOP"}); err != nil {
		t.Fatal(err)
	}
	o.await("traffic", func() bool {
		return sum(o.consumers, "sms_statuses_total", "") > 0 && sum(o.consumers, "sms_ended_total", "") > 0 && sum(o.consumers, "sheets_rows_written_total", "") > 0 && sum(o.consumers, "leads_graph_calls_total", "") > 0
	})
	page, err := os.ReadFile(natstest.Root(t, "docs/interface.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Metrics\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var listed []string
	for _, m := range documented.FindAllStringSubmatch(section, -1) {
		listed = append(listed, m[1])
	}
	is := served(o.edge, o.consumers)
	own := slices.DeleteFunc(slices.Clone(is), func(n string) bool {
		return strings.HasPrefix(n, "go_") || strings.HasPrefix(n, "process_") || strings.HasPrefix(n, "promhttp_") ||
			strings.HasSuffix(n, "_bucket") || strings.HasSuffix(n, "_sum") || strings.HasSuffix(n, "_count")
	})
	disk := []string{"store_free_bytes", "store_reserve_bytes", "store_restarts_total"} // of an edge with its own server
	for _, n := range own {
		if !slices.Contains(listed, n) {
			t.Errorf("%s is served, and not in docs/interface.md", n)
		}
	}
	for _, n := range listed {
		if !slices.Contains(own, n) && !slices.Contains(disk, n) {
			t.Errorf("%s is in docs/interface.md, and nobody serves it", n)
		}
	}
	for _, n := range alerttest.Ask(t, alerttest.Timeline{}, dashboards(t)).Metrics {
		if n != "up" && !slices.Contains(is, n) && !slices.Contains(disk, n) {
			t.Errorf("%s is named by an alert or a dashboard, and nobody serves it", n)
		}
	}
}

// dashboards lists the expressions of deploy/grafana.
func dashboards(t *testing.T) (exprs []string) {
	t.Helper()
	dir := natstest.Root(t, "deploy/grafana")
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(dir + "/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		var board struct {
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
		if err := json.Unmarshal(text, &board); err != nil {
			t.Fatalf("%s: %v", f.Name(), err)
		}
		for _, p := range board.Panels {
			if len(p.Targets) == 0 {
				t.Errorf("%s: the panel %q shows nothing", f.Name(), p.Title)
			}
			for _, q := range p.Targets {
				exprs = append(exprs, q.Expr)
			}
		}
	}
	return exprs
}
