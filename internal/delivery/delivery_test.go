package delivery_test

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"leadpipe/contracts"
	"leadpipe/internal/delivery"
	"leadpipe/internal/natstest"
	"leadpipe/internal/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// orders gives every order of n things.
func orders(n int) [][]int {
	if n == 0 {
		return [][]int{nil}
	}
	var out [][]int
	for _, o := range orders(n - 1) {
		for i := range n {
			with := append(append(append([]int{}, o[:i]...), n-1), o[i:]...)
			out = append(out, with)
		}
	}
	return out
}

// Twilio's callbacks come in any order, and some before the call is answered; so their
// times may be earlier than the answer's. Whatever the order, somebody whom no text reached
// was not contacted, and nobody has confirmed anything to him.
// https://www.twilio.com/docs/messaging/guides/track-outbound-message-status
func TestNewsInAnyOrder(t *testing.T) {
	t.Parallel()
	store := state.New(natstest.New(t, natstest.LazySync).JetStream("operator"), nil)
	begin := time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)
	for _, end := range []string{"undelivered", "delivered"} {
		for i, order := range orders(4) {
			news := []delivery.News{
				{Status: "accepted", At: begin.Add(3 * time.Second)}, // the answer to the call, entered last of all
				{Status: "queued", At: begin.Add(time.Second)},
				{Status: "sent", At: begin},
				{Status: end, At: begin.Add(2 * time.Second)},
			}
			if end == "undelivered" {
				news[3].Code = 30003
			}
			id, phone := fmt.Sprintf("%s%d", end, i), fmt.Sprintf("+336399%05d", 80000+i+100*len(end))
			welcome, bye := contracts.KeySMS(contracts.SMSWelcome, id), contracts.KeySMS(contracts.SMSOptOutConfirmation, phone[1:])
			update(t, store, func(tx *state.Tx) error {
				if err := tx.Put(contracts.KeyLead(id), contracts.Lead{ID: id, Phone: phone, Status: contracts.LeadNew}); err != nil {
					return err
				}
				if err := tx.Put(contracts.KeyOptOut(phone[1:]), contracts.OptOut{Phone: phone, OptedOutAt: begin}); err != nil {
					return err
				}
				if err := tx.Put(bye, contracts.SMS{Kind: contracts.SMSOptOutConfirmation, To: phone, Status: contracts.SMSSending, Cause: phone[1:]}); err != nil {
					return err
				}
				return tx.Put(welcome, contracts.SMS{Kind: contracts.SMSWelcome, To: phone, Status: contracts.SMSSending, Cause: id, LeadID: id})
			})
			for _, n := range order {
				update(t, store, func(tx *state.Tx) error {
					for sid, key := range map[string]string{"SM1" + id: welcome, "SM2" + id: bye} {
						n := news[n]
						n.SID = sid
						if err := delivery.Record(tx, key, n); err != nil {
							return err
						}
					}
					return nil
				})
			}
			var lead contracts.Lead
			var out contracts.OptOut
			read(t, store, contracts.KeyLead(id), &lead)
			read(t, store, contracts.KeyOptOut(phone[1:]), &out)
			want := time.Time{}
			if end == "delivered" {
				want = begin // the earliest that is known
			}
			if !lead.ContactedAt.Equal(want) || !out.ConfirmedAt.Equal(want) || lead.Status == contracts.LeadContacted != !want.IsZero() {
				t.Errorf("%s, in the order %v: the lead is %s, contacted at %v, the opt-out confirmed at %v; want %v",
					end, order, lead.Status, lead.ContactedAt, out.ConfirmedAt, want)
			}
		}
	}
}

func update(t *testing.T, store *state.Store, f func(*state.Tx) error) {
	t.Helper()
	if err := store.Update(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, store *state.Store, key string, into any) {
	t.Helper()
	if found, err := store.Get(t.Context(), key, into); err != nil || !found {
		t.Fatalf("%s: %v, %v", key, found, err)
	}
}
