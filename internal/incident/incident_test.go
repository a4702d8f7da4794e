package incident_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"leadpipe/contracts"
	"leadpipe/contracts/contractstest"
	"leadpipe/internal/incident"
	"leadpipe/internal/natstest"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var day = time.Date(2026, 11, 20, 9, 12, 4, 0, time.UTC)

// book is a bucket as the consumers have it, and as the operator sees it.
type book struct {
	t     *testing.T
	nats  *natstest.Server
	store *state.Store
}

func open(t *testing.T) *book {
	s := natstest.New(t, natstest.LazySync)
	return &book{t: t, nats: s, store: state.New(s.JetStream("consumers"), nil)}
}

func (b *book) do(decide func(*state.Tx) error) {
	b.t.Helper()
	if err := b.store.Update(b.t.Context(), decide); err != nil {
		b.t.Fatal(err)
	}
}

func (b *book) raise(r incident.Report) {
	b.t.Helper()
	b.do(func(tx *state.Tx) error { return incident.Raise(tx, r) })
}

// incidents are the records of the bucket, by id.
func (b *book) incidents() map[string]contracts.Incident {
	b.t.Helper()
	kv, err := b.nats.JetStream("operator").KeyValue(b.t.Context(), contracts.Bucket)
	if err != nil {
		b.t.Fatal(err)
	}
	keys, err := kv.ListKeysFiltered(b.t.Context(), "incident.>", contracts.KeyIncidentIndex)
	if err != nil {
		b.t.Fatal(err)
	}
	out := map[string]contracts.Incident{}
	for key := range keys.Keys() {
		e, err := kv.Get(b.t.Context(), key)
		if err != nil {
			b.t.Fatal(err)
		}
		contractstest.Record(b.t, key, e.Value())
		if key == contracts.KeyIncidentIndex {
			continue
		}
		var i contracts.Incident
		if _, err := b.store.Get(b.t.Context(), key, &i); err != nil {
			b.t.Fatal(err)
		}
		out[i.ID] = i
	}
	return out
}

func (b *book) openOnes() (ids []string) {
	for id, i := range b.incidents() {
		if i.ResolvedAt.IsZero() {
			ids = append(ids, id)
		}
	}
	return ids
}

func (b *book) written() uint64 {
	b.t.Helper()
	s, err := b.nats.JetStream("operator").Stream(b.t.Context(), contracts.StreamCRM)
	if err != nil {
		b.t.Fatal(err)
	}
	return s.CachedInfo().State.LastSeq
}

func webhook(seq uint64) contracts.Message {
	return contracts.Message{Stream: contracts.StreamWebhooks, Subject: "webhooks.stripe.invoice.paid", Sequence: seq, Time: day.Add(time.Duration(seq) * time.Second)}
}

func failure(reason outcome.Reason) *outcome.Error {
	return outcome.Of(outcome.Permanentf(reason, "it can't be done"))
}

func (b *book) fail(m contracts.Message, o *outcome.Error) {
	b.t.Helper()
	b.do(func(tx *state.Tx) error { return incident.Failed(tx, "billing", m, o) })
}

func (b *book) succeed(m contracts.Message) {
	b.t.Helper()
	b.do(func(tx *state.Tx) error { return incident.Succeeded(tx, "billing", m, day.Add(time.Hour)) })
}

func TestTheSameCauseIsCounted(t *testing.T) {
	t.Parallel()
	b := open(t)
	report := func(seq uint64, text string) incident.Report {
		m := webhook(seq)
		return incident.Report{ID: "leads-permission", Consumer: "leads", Reason: outcome.Refused, Severity: contracts.SeverityError,
			At: m.Time, Message: m, Text: text, Action: "nats consumer info WEBHOOKS leads"}
	}
	b.raise(report(10, "ten"))
	b.raise(report(12, "twelve"))
	b.raise(report(11, "eleven"))
	i := b.incidents()["leads-permission"]
	if i.Count != 3 || !i.At.Equal(webhook(10).Time) || !i.LastAt.Equal(webhook(12).Time) || i.Reason != "twelve" || !i.ResolvedAt.IsZero() {
		t.Errorf("after three: %+v", i)
	}
	before := b.written()
	for _, seq := range []uint64{10, 11, 12} { // a replay
		b.raise(report(seq, "again"))
	}
	if n := b.written() - before; n != 0 {
		t.Errorf("the same three again wrote %d messages", n)
	}
	b.do(func(tx *state.Tx) error { return incident.Resolve(tx, "leads-permission", day.Add(time.Hour)) })
	if i := b.incidents()["leads-permission"]; !i.ResolvedAt.Equal(day.Add(time.Hour)) {
		t.Errorf("resolved: %+v", i)
	}
	before = b.written()
	b.raise(report(11, "again"))
	b.raise(report(13, "it happened before it was mended, and was handled late"))
	b.do(func(tx *state.Tx) error { return incident.Resolve(tx, "leads-permission", day.Add(2*time.Hour)) })
	b.do(func(tx *state.Tx) error { return incident.Resolve(tx, "nobody-knows-it", day) })
	if n := b.written() - before; n != 0 {
		t.Errorf("what was mended is touched: %d messages", n)
	}
	b.raise(report(7200, "once more"))
	if i := b.incidents()["leads-permission"]; i.Count != 4 || !i.ResolvedAt.IsZero() {
		t.Errorf("once more: %+v", i)
	}
}

func TestOccurrencesWithoutASequence(t *testing.T) {
	t.Parallel()
	b := open(t)
	at := func(s int) incident.Report {
		return incident.Report{ID: "sheets-tab-Leads", Consumer: "sheets", Severity: contracts.SeverityWarning, At: day.Add(time.Duration(s) * time.Second), Text: "the tab is protected"}
	}
	for _, s := range []int{1, 2, 2, 1, 3} {
		b.raise(at(s))
	}
	if i := b.incidents()["sheets-tab-Leads"]; i.Count != 3 {
		t.Errorf("%+v", i)
	}
}

func TestAMessageThatGoesThroughClosesItsIncident(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.fail(webhook(42), failure(outcome.Malformed))
	b.fail(webhook(43), failure(outcome.Malformed))
	i := b.incidents()["billing-42"]
	if want := "nats consumer reset WEBHOOKS billing --sequence 42 --force"; i.Action != want || i.Count != 1 {
		t.Errorf("%+v", i)
	}
	before := b.written()
	b.fail(webhook(42), failure(outcome.Malformed))
	b.succeed(webhook(41))
	if n := b.written() - before; n != 0 {
		t.Errorf("a replay that fails again wrote %d messages", n)
	}
	b.succeed(webhook(42))
	all := b.incidents()
	if all["billing-42"].ResolvedAt.IsZero() || !all["billing-43"].ResolvedAt.IsZero() {
		t.Errorf("42 went through: %+v", all)
	}
	b.fail(webhook(42), failure(outcome.Malformed)) // a deployment that brings the fault back
	if i := b.incidents()["billing-42"]; !i.ResolvedAt.IsZero() || i.Count != 1 {
		t.Errorf("42 fails again: %+v", i)
	}
}

// A record has one revision in the bucket, so its next one stands for those before it.
func TestALaterRevisionClosesTheIncident(t *testing.T) {
	t.Parallel()
	b := open(t)
	m := contracts.Message{Stream: contracts.StreamCRM, Subject: contracts.SubjectOfKey("lead.1"), Sequence: 42, Time: day}
	b.fail(m, failure(outcome.Refused))
	other, next := m, m
	other.Subject, other.Sequence, next.Sequence = contracts.SubjectOfKey("lead.2"), 43, 44
	b.succeed(other)
	if len(b.openOnes()) != 1 {
		t.Error("another record closed it")
	}
	b.succeed(next)
	if ids := b.openOnes(); len(ids) != 0 {
		t.Errorf("open: %v", ids)
	}
}

func TestNoIncidentAboutAnIncident(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.fail(contracts.Message{Stream: contracts.StreamCRM, Subject: contracts.SubjectOfKey("incident.billing-1"), Sequence: 42, Time: day}, failure(outcome.Refused))
	if n := b.written(); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// However much goes wrong, in however many ways, at most 100 are open, every failure is
// in one of them, and all are closed once each message has gone through.
func TestAtMostAHundredAreOpen(t *testing.T) {
	t.Parallel()
	b := open(t)
	reasons := []outcome.Reason{outcome.Auth, outcome.RateLimited, outcome.Timeout, outcome.Unavailable, outcome.Malformed, outcome.Unknown,
		outcome.Refused, outcome.Conflict, outcome.Panic, outcome.Internal}
	durables := []string{"billing", "leads", "optouts", "sms", "blacklist", "sheets"}
	const n = 1200
	fold := func(decide func(tx *state.Tx, i int) error) {
		t.Helper()
		for from := 0; from < n; from += 200 {
			for i, err := range b.store.Fold(t.Context(), 200, func(tx *state.Tx, i int) error { return decide(tx, from+i) }, nil) {
				if err != nil {
					t.Fatalf("%d: %v", from+i, err)
				}
			}
		}
	}
	message := func(i int) (string, contracts.Message) {
		durable := durables[i%len(durables)]
		m := webhook(uint64(i + 1))
		if i%len(durables) > 2 {
			m.Stream, m.Subject = contracts.StreamCRM, contracts.SubjectOfKey(fmt.Sprintf("lead.%d", i))
		}
		return durable, m
	}
	failAll := func(tx *state.Tx, i int) error {
		durable, m := message(i)
		return incident.Failed(tx, durable, m, failure(reasons[i/len(durables)%len(reasons)]))
	}
	fold(failAll)
	for i := range 300 {
		b.raise(incident.Report{ID: fmt.Sprintf("optouts-person-%d", i), Consumer: "optouts", Reason: outcome.Waiting, Severity: contracts.SeverityInfo,
			At: day.Add(time.Duration(i) * time.Second), Text: "a person has to decide", Action: "consumers opt-out"})
	}
	all := b.incidents()
	count := 0
	for _, i := range all {
		if !i.ResolvedAt.IsZero() {
			t.Errorf("%s is closed", i.ID)
		}
		count += i.Count
	}
	if len(all) > incident.MostOpen || count != n+300 {
		t.Errorf("%d incidents that count %d failures", len(all), count)
	}
	before := b.written()
	fold(failAll)
	if w := b.written() - before; w != 0 {
		t.Errorf("the same failures again wrote %d messages", w)
	}
	fold(func(tx *state.Tx, i int) error {
		durable, m := message(i)
		return incident.Succeeded(tx, durable, m, day.Add(time.Hour))
	})
	for i := range 300 {
		b.do(func(tx *state.Tx) error {
			return incident.Resolve(tx, fmt.Sprintf("optouts-person-%d", i), day.Add(time.Hour))
		})
	}
	if ids := b.openOnes(); len(ids) != 0 {
		t.Errorf("open once all is mended: %v", ids)
	}
	var index contracts.IncidentIndex
	if _, err := b.store.Get(context.Background(), contracts.KeyIncidentIndex, &index); err != nil || len(index.Open) != 0 {
		t.Errorf("the index has %v, %v", index.Open, err)
	}
}

func TestAConsumerThatWaits(t *testing.T) {
	t.Parallel()
	b := open(t)
	blocked := func() {
		b.do(func(tx *state.Tx) error {
			return incident.Blocked(tx, "sms", webhook(7), failure(outcome.Auth), day)
		})
	}
	blocked()
	before := b.written()
	blocked()
	if n := b.written() - before; n != 0 {
		t.Errorf("told again, it wrote %d messages", n)
	}
	b.do(func(tx *state.Tx) error { return incident.Unblocked(tx, "leads", day) })
	if len(b.openOnes()) != 1 {
		t.Error("another consumer closed it")
	}
	b.do(func(tx *state.Tx) error { return incident.Unblocked(tx, "sms", day.Add(time.Minute)) })
	if i := b.incidents()["sms-auth"]; !i.ResolvedAt.Equal(day.Add(time.Minute)) || !strings.Contains(i.Reason, "it can't be done") {
		t.Errorf("%+v", i)
	}
}

func TestAReasonIsBounded(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.fail(webhook(1), outcome.Of(outcome.Permanentf(outcome.Refused, "%s", strings.Repeat("é\n", 100_000))))
	if i := b.incidents()["billing-1"]; len(i.Reason) > 600 || !strings.HasPrefix(i.Reason, "é é") {
		t.Errorf("a reason of %d bytes", len(i.Reason))
	}
}

// A state that lasts is one occurrence until it is closed, however often it is seen and
// whichever message met it; seen again after that, it is another.
func TestAStateThatLasts(t *testing.T) {
	t.Parallel()
	b := open(t)
	see := func(s int, seq uint64) {
		b.raise(incident.Report{ID: "leads-auth", Consumer: "leads", Reason: outcome.Auth, Severity: contracts.SeverityError, Standing: true,
			At: day.Add(time.Duration(s) * time.Second), Message: webhook(seq), Text: "the token is refused"})
	}
	see(1, 10)
	before := b.written()
	see(2, 10)
	see(3, 11)
	if n := b.written() - before; n != 0 || len(b.openOnes()) != 1 {
		t.Errorf("seen again, it wrote %d messages; open %v", n, b.openOnes())
	}
	b.succeed(webhook(10)) // which asked nobody
	if len(b.openOnes()) != 1 {
		t.Error("closed by a message that went through")
	}
	b.do(func(tx *state.Tx) error { return incident.Resolve(tx, "leads-auth", day.Add(4*time.Second)) })
	see(5, 10)
	if i := b.incidents()["leads-auth"]; i.Count != 2 || !i.ResolvedAt.IsZero() {
		t.Errorf("seen after it was closed: %+v", i)
	}
}
