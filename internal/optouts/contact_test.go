package optouts_test

import (
	"context"
	"testing"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/optouts"
)

// answering is an Optouts that says who writes.
func answering(t *testing.T) *optouts.Optouts {
	t.Helper()
	stop, err := optouts.ParseText("")
	if err != nil {
		t.Fatal(err)
	}
	contact, err := optouts.ParseContact("{{.Company}}, 01 99 00 00 00. STOP pour ne plus recevoir de SMS.")
	if err != nil {
		t.Fatal(err)
	}
	o, err := optouts.New(optouts.Options{Text: stop, Contact: contact, Company: "Atelier Martin", MaxAge: 48 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// asks is a text that comes in and is no opt-out.
func asks(at time.Time, body, optOutType string) contracts.Message {
	return message(contracts.SubjectInbound(digits), at, map[string]string{"MessageSid": sid, "From": phone, "Body": body, "OptOutType": optOutType})
}

func TestWhoeverAsksIsToldWhoWritesOnceADay(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	o := answering(t)
	key := contracts.KeySMS(contracts.SMSContact, digits)

	decide(t, o, s, asks(noon, "Contact", ""))
	first, ok := get[contracts.SMS](t, s, key)
	if !ok || first.Status != contracts.SMSQueued || first.To != phone || first.Body != "Atelier Martin, 01 99 00 00 00. STOP pour ne plus recevoir de SMS." {
		t.Fatalf("the answer is %+v", first)
	}
	decide(t, o, s, asks(noon.Add(23*time.Hour), "aide", ""))
	if again, _ := get[contracts.SMS](t, s, key); !again.QueuedAt.Equal(noon) {
		t.Errorf("answered a second time on the same day: %+v", again)
	}
	decide(t, o, s, asks(noon.Add(25*time.Hour), "HELP", ""))
	if again, _ := get[contracts.SMS](t, s, key); !again.QueuedAt.Equal(noon.Add(25 * time.Hour)) {
		t.Errorf("not answered on the next day: %+v", again)
	}
}

func TestNobodyIsToldWhoWritesAfterAStop(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	o := answering(t)
	decide(t, o, s, stop(noon, sid, "STOP"), asks(noon.Add(time.Minute), "CONTACT", ""))
	if text, ok := get[contracts.SMS](t, s, contracts.KeySMS(contracts.SMSContact, digits)); ok {
		t.Errorf("a number that has opted out is answered: %+v", text)
	}
}

// Where nothing is to be said, or Twilio has said it, the question is no more than a text.
func TestAQuestionThatNeedsNoAnswerIsNothing(t *testing.T) {
	t.Parallel()
	s, n := newStore(t)
	before := last(t, n)
	for _, body := range []string{"CONTACT", "help", "Aide svp", "Bonjour, c'est pour quand ?", ""} {
		decide(t, newOptouts(t), s, asks(noon, body, ""))
	}
	decide(t, answering(t), s, asks(noon, "HELP", "HELP"))
	if after := last(t, n); after != before {
		t.Errorf("%d records were written", after-before)
	}
	if _, err := newOptouts(t).Prepare(context.Background(), message(contracts.SubjectInbound("38111"), noon, map[string]string{"Body": "Bonjour"})); err != nil {
		t.Errorf("an ordinary text of a short code: %v", err)
	}
}
