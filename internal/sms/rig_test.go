package sms_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
	"leadpipe/contracts/contractstest"
	"leadpipe/internal/bus"
	"leadpipe/internal/natstest"
	"leadpipe/internal/optouts"
	standin "leadpipe/internal/sandbox/twilio"
	"leadpipe/internal/sms"
	"leadpipe/internal/state"
	"leadpipe/internal/twilio"
)

const (
	account = "AC00000000000000000000000000000001"
	token   = "0123456789abcdef0123456789abcdef"
	from    = "38998"
	lease   = 3 * callTime
	// callTime is how long a call to the stand-in may take. Leases are three of it.
	callTime = 500 * time.Millisecond
)

// A rig is a NATS server with all assets, a stand-in for Twilio, and whatever consumers
// a test starts.
type rig struct {
	tb     testing.TB
	nats   *natstest.Server
	js     jetstream.JetStream
	store  *state.Store
	twilio *standin.Server
	http   *httptest.Server
	logs   *logs
}

func newRig(tb testing.TB, change ...func(*standin.Options)) *rig {
	tb.Helper()
	return newRigOn(tb, natstest.New(tb, natstest.LazySync), change...)
}

func newRigOn(tb testing.TB, server *natstest.Server, change ...func(*standin.Options)) *rig {
	tb.Helper()
	r := &rig{tb: tb, nats: server, logs: &logs{tb: tb}}
	r.js = r.nats.JetStream("consumers")
	r.store = state.New(r.js, nil)
	o := standin.Options{AccountSID: account, AuthToken: token, MuteCallbacks: true}
	for _, c := range change {
		c(&o)
	}
	var err error
	if r.twilio, err = standin.New(o); err != nil {
		tb.Fatal(err)
	}
	r.http = httptest.NewServer(r.twilio)
	tb.Cleanup(func() { r.http.Close(); _ = r.twilio.Close() })
	return r
}

// client makes a client of the stand-in.
func (r *rig) client(change ...func(*twilio.Options)) *twilio.Client {
	return client(r.tb, r.http.URL, change...)
}

func client(tb testing.TB, url string, change ...func(*twilio.Options)) *twilio.Client {
	tb.Helper()
	o := twilio.Options{Account: account, Token: token, BaseURL: url, Timeout: callTime, Conns: 64}
	for _, c := range change {
		c(&o)
	}
	c, err := twilio.New(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c
}

// sender makes a sender over the rig.
func (r *rig) sender(change ...func(*sms.Options)) *sms.Sender {
	r.tb.Helper()
	o := sms.Options{
		Store: r.store, Look: r.store.Last, Twilio: r.client(), From: from, PublicURL: "http://hooks.example.com",
		Lease: lease, Hold: 20 * time.Millisecond, Log: r.logs.logger(),
	}
	for _, c := range change {
		c(&o)
	}
	s, err := sms.New(o)
	if err != nil {
		r.tb.Fatal(err)
	}
	return s
}

// patient makes a sender for tests in which nobody dies: a machine that stands still for
// half a second is no reason to hold a text, nor to give a call up.
func (r *rig) patient() *sms.Sender {
	r.tb.Helper()
	return r.sender(func(o *sms.Options) {
		o.Twilio = r.client(func(o *twilio.Options) { o.Timeout = 10 * callTime })
		o.Lease = 30 * callTime
	})
}

// runSMS runs a sender on the durable until stop is called, or the test ends.
func (r *rig) runSMS(change ...func(*sms.Options)) (stop func()) {
	return r.loop(contracts.StreamCRM, contracts.SMSSender, r.sender(change...).Handle)
}

// runOptOuts runs the opt-outs consumer.
func (r *rig) runOptOuts() (stop func()) {
	o := newOptOuts(r.tb)
	return r.loop(contracts.StreamWebhooks, contracts.Optouts, bus.Fold(contracts.Optouts, r.store, 1, o.Prepare, o.Decide))
}

func newOptOuts(tb testing.TB) *optouts.Optouts {
	tb.Helper()
	text, err := optouts.ParseText("")
	if err != nil {
		tb.Fatal(err)
	}
	o, err := optouts.New(optouts.Options{Text: text, MaxAge: 48 * time.Hour})
	if err != nil {
		tb.Fatal(err)
	}
	return o
}

func (r *rig) loop(stream, durable string, h bus.Handler) (stop func()) {
	r.tb.Helper()
	l, err := bus.NewLoop(r.js, bus.Options{
		Stream: stream, Durable: durable, Handle: h, Max: 256, Store: r.store,
		Log: r.logs.logger(), Metrics: bus.NewMetrics(nil),
	})
	if err != nil {
		r.tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			r.tb.Errorf("loop of %s: %v", durable, err)
		}
	})
	r.tb.Cleanup(stop)
	return stop
}

// number is the nth of a range that is kept for fiction, as E.164.
func number(n int) string { return fmt.Sprintf("+336399%05d", n) }

func digits(n int) string { return strings.TrimPrefix(number(n), "+") }

// welcome is a queued welcome text to the nth number, with its lead.
func welcome(n int) (lead contracts.Lead, text contracts.SMS) {
	id, at := fmt.Sprint(1000+n), time.Now().UTC().Truncate(time.Second)
	lead = contracts.Lead{ID: id, CreatedAt: at, Phone: number(n), Status: contracts.LeadNew}
	return lead, contracts.SMS{
		Kind: contracts.SMSWelcome, To: lead.Phone, Body: fmt.Sprintf("Bonjour, secret-%d", n), Status: contracts.SMSQueued,
		QueuedAt: at, ExpiresAt: at.Add(48 * time.Hour), Cause: id, LeadID: id,
	}
}

// span lists the numbers from first to last-1.
func span(first, last int) []int {
	var ns []int
	for n := first; n < last; n++ {
		ns = append(ns, n)
	}
	return ns
}

// queue commits leads, contacts and queued welcomes of some numbers, as leads does.
func (r *rig) queue(ns ...int) {
	r.tb.Helper()
	for i, err := range r.store.Fold(context.Background(), len(ns), func(tx *state.Tx, i int) error {
		lead, text := welcome(ns[i])
		key := contracts.KeyContact(digits(ns[i]))
		contact, _, err := state.Get[contracts.Contact](tx, key)
		if err != nil {
			return err
		}
		contact.Phone, contact.Leads, contact.Customers = lead.Phone, []string{lead.ID}, []string{}
		if err := tx.Put(contracts.KeyLead(lead.ID), lead); err != nil {
			return err
		}
		if err := tx.Put(key, contact); err != nil {
			return err
		}
		return tx.Put(contracts.KeySMS(text.Kind, text.Cause), text)
	}, nil) {
		if err != nil {
			r.tb.Fatalf("queueing %d: %v", ns[i], err)
		}
	}
}

// put commits one record.
func (r *rig) put(key string, record any) {
	r.tb.Helper()
	if err := r.store.Update(context.Background(), func(tx *state.Tx) error { return tx.Put(key, record) }); err != nil {
		r.tb.Fatal(err)
	}
}

// get reads a record; the test ends without one.
func get[T any](r *rig, key string) (record T) {
	r.tb.Helper()
	ok, err := r.store.Get(context.Background(), key, &record)
	if err != nil || !ok {
		r.tb.Fatalf("record %s: found %t, %v", key, ok, err)
	}
	return record
}

// text reads the nth number's welcome.
func (r *rig) text(n int) contracts.SMS {
	r.tb.Helper()
	return get[contracts.SMS](r, contracts.KeySMS(contracts.SMSWelcome, fmt.Sprint(1000+n)))
}

// eventually waits for a condition.
func eventually(tb testing.TB, within time.Duration, what string, met func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(within); !met(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("after %s still not: %s", within, what)
		}
	}
}

// statuses waits until the texts of the numbers have one of the statuses.
func (r *rig) statuses(within time.Duration, first, last int, want ...contracts.SMSStatus) {
	r.tb.Helper()
	var still string
	deadline := time.Now().Add(within)
	for n := first; n < last; {
		text := r.text(n)
		met := false
		for _, w := range want {
			met = met || text.Status == w
		}
		if met {
			n++
			continue
		}
		still = string(text.Status)
		if time.Now().After(deadline) {
			r.tb.Fatalf("after %s text %d is still %s (%s), not %v", within, n, still, text.Error, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// change is the newest message on a key, as the durable would be given it.
func (r *rig) change(key string) contracts.Message {
	r.tb.Helper()
	stream, err := r.nats.JetStream("operator").Stream(context.Background(), contracts.StreamCRM)
	if err != nil {
		r.tb.Fatal(err)
	}
	raw, err := stream.GetLastMsgForSubject(context.Background(), contracts.SubjectOfKey(key))
	if err != nil {
		r.tb.Fatal(err)
	}
	return contracts.Message{Stream: contracts.StreamCRM, Subject: raw.Subject, Data: raw.Data, Sequence: raw.Sequence, Time: raw.Time, Attempt: 1}
}

// walk yields all records of texts.
func (r *rig) walk(ctx context.Context, yield func([]contracts.Message) error) error {
	return bus.Records(ctx, r.nats.JetStream("consumers"), []string{"sms."}, yield)
}

// publish stores a webhook of Twilio's as the edge does.
func (r *rig) publish(subject, id string, at time.Time, form map[string]string) {
	r.tb.Helper()
	data, err := json.Marshal(form)
	if err != nil {
		r.tb.Fatal(err)
	}
	err = bus.NewPublisher(r.nats.JetStream("edge")).Publish(context.Background(), []contracts.Message{{
		Subject: subject, ID: id, Data: data, Header: map[string]string{contracts.HeaderTime: at.UTC().Format(time.RFC3339Nano)},
	}})
	if err != nil {
		r.tb.Fatal(err)
	}
}

// stop publishes a STOP of the nth number.
func (r *rig) stop(n int, sid string) {
	r.publish(contracts.SubjectOptOut(digits(n)), contracts.MessageIDTwilio(sid), time.Now(),
		map[string]string{"MessageSid": sid, "AccountSid": account, "From": number(n), "To": from, "Body": "STOP"})
}

// sendsPer counts the texts that each number got.
func (r *rig) sendsPer() map[string]int {
	out := map[string]int{}
	for _, m := range r.twilio.Messages() {
		out[m.To]++
	}
	return out
}

// valid checks every record of the bucket against its schema.
func (r *rig) valid() {
	r.tb.Helper()
	kv, err := r.nats.JetStream("operator").KeyValue(context.Background(), contracts.Bucket)
	if err != nil {
		r.tb.Fatal(err)
	}
	keys, err := kv.Keys(context.Background())
	if errors.Is(err, jetstream.ErrNoKeysFound) {
		return
	}
	if err != nil {
		r.tb.Fatal(err)
	}
	for _, k := range keys {
		e, err := kv.Get(context.Background(), k)
		if err != nil {
			r.tb.Fatal(err)
		}
		contractstest.Record(r.tb, k, e.Value())
	}
}

// logs collect what the consumers log, and check at the end of the test that no line
// has a whole number, a text or a token.
type logs struct {
	tb   testing.TB
	once sync.Once
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) logger() *slog.Logger {
	l.once.Do(func() {
		l.tb.Cleanup(func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			checkLog(l.tb, l.text.String())
			if l.tb.Failed() {
				l.tb.Logf("log:\n%.20000s", l.text.String())
			}
		})
	})
	return slog.New(slog.NewJSONHandler(io.Writer(l), nil))
}

// clockTimes are the parts of a log line whose digits are the clock's: nanoseconds may
// well look like the beginning of a number.
var clockTimes = regexp.MustCompile(`"(?:time|in)":"[0-9][^"]*"`)

func checkLog(tb testing.TB, text string) {
	tb.Helper()
	text = clockTimes.ReplaceAllString(text, "")
	for _, secret := range []string{"336399", "secret-", "désabonné", token} {
		if i := strings.Index(text, secret); i >= 0 {
			tb.Errorf("a log line has %q: %.300s", secret, text[max(0, i-100):])
		}
	}
}

// sequence is that of the bucket's stream: it grows with everything written.
func (r *rig) sequence() uint64 {
	r.tb.Helper()
	s, err := r.nats.JetStream("operator").Stream(context.Background(), contracts.StreamCRM)
	if err != nil {
		r.tb.Fatal(err)
	}
	return s.CachedInfo().State.LastSeq
}
