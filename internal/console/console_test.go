package console_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
	"leadpipe/internal/console"
	"leadpipe/internal/natstest"
)

// rig is a console on a real server, as the user consumers.
type rig struct {
	url    string
	js     jetstream.JetStream // the operator's
	server *natstest.Server
}

func open(t *testing.T, change func(*console.Options)) rig {
	t.Helper()
	s := natstest.New(t, natstest.LazySync)
	return openOn(t, s, change)
}

func openOn(t *testing.T, s *natstest.Server, change func(*console.Options)) rig {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := console.Options{JS: s.JetStream("consumers"), Addr: l.Addr().String()}
	if change != nil {
		change(&o)
	}
	c, err := console.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	r := rig{"http://" + l.Addr().String(), s.JetStream("operator"), s}
	if o.Password == "" {
		r.get(t, "/api/state") // somebody looks: only then does it watch
	}
	return r
}

func (r rig) publish(t *testing.T, subject, body string) uint64 {
	t.Helper()
	ack, err := r.js.PublishMsg(t.Context(), &nats.Msg{Subject: subject, Data: []byte(body)})
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

type text struct {
	T, R string
}

type state struct {
	Connected bool
	Health    []struct {
		Name, State string
		Lag         uint64
	}
	Charts    struct{ Webhooks, Leads, Texts, Optouts []int }
	Incidents []struct {
		ID, Action text
		Count      int
	}
	Webhooks []struct {
		Seq         uint64
		Kind        string
		Name, Phone text
		Effects     []struct {
			Key   text
			Kind  string
			Marks []struct {
				S  string
				MS int64
			}
		}
	}
}

func (r rig) get(t *testing.T, path string) (int, string) {
	t.Helper()
	client := http.Client{Timeout: 20 * time.Second}
	res, err := client.Get(r.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.Header.Get("Content-Type") == "text/event-stream" {
		// Events never end: whoever asked sees by the status that they were not refused.
		return res.StatusCode, ""
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// await asks for the state until it is as wanted.
func (r rig) await(t *testing.T, what string, ok func(state) bool) state {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		_, body := r.get(t, "/api/state")
		var s state
		if err := json.Unmarshal([]byte(body), &s); err != nil {
			t.Fatal(err)
		}
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("not seen: %s\n%s", what, body)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// effects are what a webhook caused, as "key: state → state".
func (s state) effects(seq uint64) []string {
	var out []string
	for _, w := range s.Webhooks {
		if w.Seq != seq {
			continue
		}
		for _, e := range w.Effects {
			var marks []string
			for _, m := range e.Marks {
				marks = append(marks, m.S)
			}
			out = append(out, e.Key.T+": "+strings.Join(marks, " → "))
		}
	}
	slices.Sort(out)
	return out
}

func sum(n []int) (total int) {
	for _, x := range n {
		total += x
	}
	return total
}

// Each webhook bears what it caused and nothing that another one did: two leads at
// once, a payment that names its lead, a text's delivery, a STOP.
func TestEachWebhookBearsWhatItCaused(t *testing.T) {
	t.Parallel()
	r := open(t, nil)
	lead := func(id string) uint64 {
		return r.publish(t, contracts.SubjectFacebookLeadgen, fmt.Sprintf(`{"leadgen_id":%q,"page_id":"1"}`, id))
	}
	record := func(key, body string) { r.publish(t, contracts.SubjectOfKey(key), body) }
	sent := time.Now().UTC().Format(time.RFC3339)

	// The lead's own webhook causes its record, contact and text; so does the other's.
	ada, bob := lead("1001"), lead("1002")
	for _, p := range [][3]string{{"1001", "33639980001", "Ada"}, {"1002", "33639980002", "Bob"}} {
		record("lead."+p[0], fmt.Sprintf(`{"id":%q,"name":%q,"phone":"+%s","status":"new"}`, p[0], p[2], p[1]))
		record("contact."+p[1], fmt.Sprintf(`{"phone":"+%s","leads":[%q]}`, p[1], p[0]))
		record("sms.welcome."+p[0], fmt.Sprintf(`{"kind":"welcome","to":"+%s","status":"queued","lead_id":%q}`, p[1], p[0]))
	}
	r.await(t, "both leads", func(s state) bool { return len(s.effects(ada)) == 3 && len(s.effects(bob)) == 3 })
	record("sms.welcome.1001", fmt.Sprintf(`{"kind":"welcome","to":"+33639980001","status":"sent","sent_at":%q}`, sent))
	record("lead.1001", `{"id":"1001","name":"Ada","phone":"+33639980001","status":"contacted"}`)
	s := r.await(t, "Ada is contacted", func(s state) bool { return slices.Contains(s.effects(ada), "lead.1001: new → contacted") })
	if got, want := strings.Join(s.effects(ada), "; "), "contact.336****0001: ; lead.1001: new → contacted; sms.welcome.1001: queued → sent"; got != want {
		t.Errorf("Ada's form caused %q, want %q", got, want)
	}
	if got, want := strings.Join(s.effects(bob), "; "), "contact.336****0002: ; lead.1002: new; sms.welcome.1002: queued"; got != want {
		t.Errorf("Bob's form caused %q, want %q", got, want)
	}

	// Twilio's news of the text are a webhook of their own.
	news := r.publish(t, contracts.SubjectStatus("SM1"), `{"MessageSid":"SM1","MessageStatus":"delivered","sms":"welcome.1001","To":"+33639980001"}`)
	record("sms.welcome.1001", fmt.Sprintf(`{"kind":"welcome","to":"+33639980001","status":"delivered","sent_at":%q}`, sent))

	// Two webhooks of one payment, answered by one commit: both bear it. The lead's
	// record, which Stripe does not name here, mentions the customer.
	paid := r.publish(t, contracts.SubjectStripe("checkout.session.completed"),
		`{"id":"evt_1","data":{"object":{"object":"checkout.session","id":"cs_1","customer":"cus_1","subscription":"sub_1","amount_total":4900,"currency":"eur"}}}`)
	sub := r.publish(t, contracts.SubjectStripe("customer.subscription.created"),
		`{"id":"evt_2","data":{"object":{"object":"subscription","id":"sub_1","customer":"cus_1"}}}`)
	record("customer.cus_1", `{"id":"cus_1","status":"client","access":"active","lead_id":"1001","subscriptions":["sub_1"]}`)
	record("lead.1001", `{"id":"1001","name":"Ada","phone":"+33639980001","status":"client","customer_id":"cus_1"}`)

	// A STOP touches who has the number; a webhook that fails is named by its incident.
	stop := r.publish(t, contracts.SubjectOptOut("33639980002"), `{"Body":"STOP","From":"+33639980002"}`)
	record("optout.33639980002", `{"phone":"+33639980002","keyword":"STOP","source":"sms"}`)
	bad := r.publish(t, contracts.SubjectStripe("invoice.paid"), `{"id":"evt_3","data":{"object":{"object":"invoice"}}}`)
	record("incident.billing-9", fmt.Sprintf(`{"id":"billing-9","severity":"warning","consumer":"billing","stream":"WEBHOOKS","sequence":%d,"reason":"malformed","action":"consumers opt-out +33639980002"}`, bad))

	s = r.await(t, "the incident", func(s state) bool { return len(s.effects(bad)) == 1 })
	for seq, want := range map[uint64]string{
		news: "sms.welcome.1001: delivered",
		ada:  "contact.336****0001: ; lead.1001: new → contacted; sms.welcome.1001: queued → sent → delivered",
		paid: "customer.cus_1: client; lead.1001: client",
		sub:  "customer.cus_1: client; lead.1001: client",
		stop: "optout.336****0002: STOP",
		bad:  "incident.billing-9: warning",
	} {
		if got := strings.Join(s.effects(seq), "; "); got != want {
			t.Errorf("webhook %d caused %q, want %q", seq, got, want)
		}
	}
	if sum(s.Charts.Webhooks) != 7 || sum(s.Charts.Leads) != 2 || sum(s.Charts.Texts) != 1 || sum(s.Charts.Optouts) != 1 {
		t.Errorf("the charts count %d webhooks, %d leads, %d texts, %d opt-outs",
			sum(s.Charts.Webhooks), sum(s.Charts.Leads), sum(s.Charts.Texts), sum(s.Charts.Optouts))
	}

	// Nowhere is a number whole, until one is asked for.
	_, all := r.get(t, "/api/state")
	if strings.Contains(all, "63998000") {
		t.Errorf("a number is shown:\n%s", all)
	}
	if len(s.Incidents) != 1 {
		t.Fatalf("%d incidents", len(s.Incidents))
	}
	if code, whole := r.get(t, "/api/whole?ref="+s.Incidents[0].Action.R); code != 200 || whole != `{"text":"consumers opt-out +33639980002"}` {
		t.Errorf("the command whole: %d %s", code, whole)
	}

	// A replay that succeeds closes the incident, and the page forgets it.
	record("incident.billing-9", `{"id":"billing-9","severity":"warning","resolved_at":"2026-11-26T10:00:00Z"}`)
	r.await(t, "no incident", func(s state) bool { return len(s.Incidents) == 0 })

	// A console that starts now knows the hour, the webhooks and what is left of their story.
	record("index.incidents", `{"open":[{"id":"leads-auth"}]}`)
	record("incident.leads-auth", `{"id":"leads-auth","severity":"error","consumer":"leads","reason":"token"}`)
	later := openOn(t, r.server, nil)
	s = later.await(t, "what was before", func(s state) bool {
		return sum(s.Charts.Texts) == 1 && sum(s.Charts.Webhooks) == 7 && len(s.Webhooks) == 7 && len(s.Incidents) == 1
	})
	later.await(t, "Bob's STOP", func(s state) bool { return slices.Contains(s.effects(stop), "optout.336****0002: STOP") })
}

func TestHealth(t *testing.T) {
	t.Parallel()
	r := open(t, func(o *console.Options) { o.Off = map[string]string{contracts.Sheets: "GOOGLE_SHEETS_ID is not set"} })
	r.publish(t, contracts.SubjectStripe("invoice.paid"), `{}`)
	is := func(s state, name, state string, lag uint64) bool {
		for _, d := range s.Health {
			if d.Name == name {
				return d.State == state && d.Lag == lag
			}
		}
		return false
	}
	// Nobody asks for work: after a few seconds the page says so.
	r.await(t, "nobody runs billing, sheets is off", func(s state) bool {
		return is(s, contracts.Billing, "nobody", 1) && is(s, contracts.Sheets, "off", 0)
	})
	cons, err := r.js.Consumer(t.Context(), contracts.StreamWebhooks, contracts.Billing)
	if err != nil {
		t.Fatal(err)
	}
	work, err := cons.Consume(func(m jetstream.Msg) { _ = m.Ack() })
	if err != nil {
		t.Fatal(err)
	}
	defer work.Stop()
	r.await(t, "billing is idle", func(s state) bool { return is(s, contracts.Billing, "idle", 0) })
}

// The page is told what happens, over one connection, and of an outage too.
func TestEvents(t *testing.T) {
	t.Parallel()
	r := open(t, nil)
	res, err := http.Get(r.url + "/api/events")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if kind := res.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Errorf("events come as %q", kind)
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		scan := bufio.NewScanner(res.Body)
		scan.Buffer(nil, 1<<20)
		for scan.Scan() {
			lines <- scan.Text()
		}
	}()
	next := func(what string) {
		t.Helper()
		deadline := time.After(15 * time.Second)
		for {
			select {
			case l := <-lines:
				if strings.Contains(l, what) {
					return
				}
			case <-deadline:
				t.Fatalf("no event has %s", what)
			}
		}
	}
	next(`"whole":true`)
	seq := r.publish(t, contracts.SubjectFacebookLeadgen, `{"leadgen_id":"77"}`)
	next(fmt.Sprintf(`"seq":%d`, seq))
	r.publish(t, contracts.SubjectOfKey("lead.77"), `{"id":"77","name":"Zoé","status":"new"}`)
	next(`"s":"new"`)

	r.server.Nodes[0].Stop()
	next(`"connected":false`)
	r.server.Start(0)
	next(`"connected":true`)
	after := openOperator(t, r.server)
	if _, err := after.Publish(t.Context(), contracts.SubjectFacebookLeadgen, []byte(`{"leadgen_id":"78"}`)); err != nil {
		t.Fatal(err)
	}
	next(fmt.Sprintf(`"seq":%d`, seq+1))
}

func openOperator(t *testing.T, s *natstest.Server) jetstream.JetStream {
	t.Helper()
	return s.JetStream("operator")
}

// The password protects the page, its files, its API and its events alike.
func TestPasswordOnEveryPath(t *testing.T) {
	t.Parallel()
	r := open(t, func(o *console.Options) {
		o.Password = "sesame"
		o.Panel = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("panel")) })
		o.Trace = func(context.Context, string) ([]console.Step, error) { return nil, nil }
	})
	for _, path := range []string{"/", "/console.js", "/console.css", "/words.js", "/icon.svg", "/api/state", "/api/events", "/api/whole?ref=x", "/api/trace?id=1", "/panel/", "/nowhere"} {
		if code, body := r.get(t, path); code != http.StatusUnauthorized || len(body) > 100 {
			t.Errorf("%s without the password: %d %q", path, code, body)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(console.User, "sesame")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		t.Errorf("with the password: %d", res.StatusCode)
	}
}

func TestTheConsoleOnlyReads(t *testing.T) {
	t.Parallel()
	r := open(t, nil)
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
		for _, path := range []string{"/", "/api/state", "/api/events", "/api/whole", "/api/trace", "/panel/do/lead"} {
			req, err := http.NewRequestWithContext(t.Context(), method, r.url+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != http.StatusMethodNotAllowed && res.StatusCode != http.StatusNotFound {
				t.Errorf("%s %s: %d", method, path, res.StatusCode)
			}
		}
	}
}
