// Package leads turns an announcement of Meta's into a lead: it reads the form from
// the Graph API, and in one commit creates the lead, lists it in its contact and
// queues a welcome text.
//
// A form is filled in once and never changes. So a lead that is in the bucket with its
// answers is complete: its announcement, whenever it comes again, neither calls Graph nor
// writes. To read a lead anew, delete its record and replay its message.
//
// A lead that Graph does not give is there all the same within seconds, pending, with what
// its announcement says: see wait.
//
// No welcome goes to a number that can't be texted or has opted out, to somebody who
// is a client already (one who left and comes back is welcome), or within a day of
// another welcome to the same number, by whatever form: Contact.Welcomes remembers.
package leads

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"leadpipe/contracts"
	"leadpipe/internal/consent"
	"leadpipe/internal/identity"
	"leadpipe/internal/incident"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
	"leadpipe/internal/text"
)

const (
	// welcomeOnce is how long after a welcome, and before one, the same number gets no
	// second one.
	welcomeOnce = 24 * time.Hour
	// longestName is the longest first name that we greet by.
	longestName = 30
)

// DefaultWelcome is the welcome text unless the operator words another. It has only
// letters of the GSM alphabet, so that it is sent and billed as one segment. It says
// how to opt out, as French law demands of such a text.
const DefaultWelcome = `{{with .Company}}{{.}} : {{end}}Bonjour{{with .FirstName}} {{.}}{{end}}, merci pour votre demande ! Nous vous recontactons très vite. Répondez STOP pour ne plus recevoir de SMS.`

// A Greeting is what a welcome text may say about its reader. Anybody can type
// anybody's number into a form, with a message to them for a name. So the names are
// here only if they look like names; else they are empty.
type Greeting struct {
	FirstName string // "Zoé"
	Name      string // "Zoé Martin"
	FormID    string
	Company   string // COMPANY_NAME; may be empty
}

// ParseWelcome reads the welcome text's template, over a Greeting; empty means
// DefaultWelcome. It must cope with empty names. An error names SMS_WELCOME_TEXT.
func ParseWelcome(template string) (*text.Template, error) {
	if template == "" {
		template = DefaultWelcome
	}
	return text.Parse("SMS_WELCOME_TEXT", template, Greeting{FirstName: "Zoé", Name: "Zoé Martin", FormID: "1", Company: "Atelier Martin"}, Greeting{})
}

// Options are what the consumer needs; the first five are required.
type Options struct {
	Graph     *Graph
	Store     *state.Store   // to see which leads are there already
	Region    string         // of phone numbers without a prefix: "FR"
	SMSMaxAge time.Duration  // from the form to the last moment at which its welcome may be sent
	Welcome   *text.Template // see ParseWelcome

	Patience time.Duration // how long an announced lead may take before it is recorded without its form; 0: 10 s

	Company        string // who writes, in every text; may be empty
	RequireConsent string // the check box without which no welcome is sent; empty: none is needed
}

// Leads is the consumer of webhooks.facebook.>. It is safe for concurrent use.
type Leads struct{ opt Options }

// New checks the options. It starts nothing.
func New(opt Options) (*Leads, error) {
	if opt.Graph == nil || opt.Store == nil || opt.Welcome == nil || opt.Region == "" || opt.SMSMaxAge <= 0 {
		return nil, errors.New("leads: an option is missing")
	}
	opt.Patience = cmp.Or(opt.Patience, patience)
	return &Leads{opt}, nil
}

// An Event is an announced lead, and what Graph says of it.
type Event struct {
	lead    contracts.Lead
	known   bool  // it is complete already: of lead only the id is filled in
	failure error // why Graph does not give it: lead is what the announcement says
	message contracts.Message
}

// Prepare decodes an announcement and reads its lead from Graph. It writes nothing. Errors
// are outcomes: permanent for an announcement that can't be read or that Meta's dashboard
// made up; those of Graph are left to Decide.
func (l *Leads) Prepare(ctx context.Context, m contracts.Message) (Event, error) {
	a, err := announced(m.Data)
	if err != nil {
		return Event{}, err
	}
	if a.placeholder() {
		return Event{}, outcome.Permanentf(outcome.Unknown,
			"lead %s is the made-up one of the Test button in Meta's dashboard: webhooks arrive, and there is nothing to read", a.leadID)
	}
	var there contracts.Lead
	known, err := l.opt.Store.Get(ctx, contracts.KeyLead(a.leadID), &there)
	if err != nil {
		return Event{}, err
	}
	if known && !there.Pending {
		return Event{lead: contracts.Lead{ID: a.leadID}, known: true}, nil
	}
	e := Event{message: contracts.Message{Stream: m.Stream, Subject: m.Subject, Sequence: m.Sequence, Time: m.Time, Attempt: m.Attempt}}
	f, err := l.opt.Graph.lead(ctx, a.leadID, m.Attempt > 1)
	if err == nil {
		e.lead, err = newLead(a, f, l.opt.Region)
	}
	if err == nil {
		err = fits(e.lead)
	}
	if err != nil {
		if ctx.Err() != nil { // this process ends, which says nothing of Graph
			return Event{}, outcome.Wait(outcome.Timeout, time.Second, ctx.Err())
		}
		e.lead, e.failure = a.lead(), err
	}
	if e.lead.CreatedAt.IsZero() {
		e.lead.CreatedAt = m.OccurredAt()
	}
	return e, nil
}

// Decide creates the lead, or completes it, with its contact and its welcome text, all from
// the event and the records. nil: done, or the lead is there already. An error is one of
// wait where Graph does not give the lead, and else the transaction's.
func (l *Leads) Decide(tx *state.Tx, e Event) error {
	lead := e.lead
	key := contracts.KeyLead(lead.ID)
	digits := ""
	need := []string{key}
	if lead.Phone != "" && lead.PhoneIssue == "" {
		digits = strings.TrimPrefix(lead.Phone, "+")
		need = append(need, contracts.KeyContact(digits), contracts.KeyOptOut(digits), contracts.KeySMS(contracts.SMSWelcome, lead.ID))
	}
	if lead.Email != "" {
		need = append(need, contracts.KeyEmailIndex(lead.Email))
	}
	if err := tx.Need(need...); err != nil {
		return err
	}
	stored, known, err := state.Get[contracts.Lead](tx, key)
	switch {
	case err != nil || known && !stored.Pending:
		return err
	case e.known:
		return outcome.NotYet(time.Second) // somebody deleted it since Prepare saw it
	case e.failure != nil:
		return l.wait(tx, e, stored, known)
	}
	if err := mended(tx, lead); err != nil {
		return err
	}
	if digits != "" {
		// An opt-out may have been written by hand, into its own record only.
		if err := consent.Mirror(tx, lead.Phone); err != nil {
			return err
		}
	}
	if err := identity.SetLead(tx, lead); err != nil {
		return err
	}
	if lead, _, err = state.Get[contracts.Lead](tx, key); err != nil {
		return err
	}
	if digits == "" || lead.Status == contracts.LeadOptedOut || lead.Status == contracts.LeadClient {
		return nil
	}
	if box := l.opt.RequireConsent; box != "" && !lead.Disclaimers[box] {
		lead.NoWelcome = noConsent
		return tx.Put(key, lead)
	}
	return l.welcome(tx, e, lead, digits)
}

// noConsent is a lead's NoWelcome where the required box was not ticked.
const noConsent = "consent"

// templateIncident is the incident of welcomes that can't be rendered; the next one that
// can closes it.
const templateIncident = "leads-template"

// welcome queues the lead's welcome text, unless the number has had one.
func (l *Leads) welcome(tx *state.Tx, e Event, lead contracts.Lead, digits string) error {
	contact, _, err := state.Get[contracts.Contact](tx, contracts.KeyContact(digits))
	if err != nil {
		return err
	}
	for _, w := range contact.Welcomes {
		if lead.CreatedAt.Sub(w.At).Abs() <= welcomeOnce {
			return nil
		}
	}
	key := contracts.KeySMS(contracts.SMSWelcome, lead.ID)
	_, queued, err := state.Get[contracts.SMS](tx, key)
	if err != nil || queued { // the lead's record was deleted, and comes anew
		return err
	}
	body, err := l.opt.Welcome.Render(Greeting{FirstName: asName(lead.FirstName), Name: asName(lead.Name), FormID: lead.FormID,
		Company: l.opt.Company})
	if err != nil { // the lead is there all the same
		return incident.Raise(tx, incident.Report{
			ID: templateIncident, Consumer: contracts.Leads, Reason: outcome.Malformed, Severity: contracts.SeverityWarning,
			At: lead.CreatedAt, Message: e.message, Text: "no welcome was sent: " + err.Error() + "; change the template and start again",
		})
	}
	if err := incident.Resolve(tx, templateIncident, lead.CreatedAt); err != nil {
		return err
	}
	contact.Welcomes = append(contact.Welcomes, contracts.Welcome{LeadID: lead.ID, At: lead.CreatedAt})
	slices.SortFunc(contact.Welcomes, func(a, b contracts.Welcome) int {
		return cmp.Or(a.At.Compare(b.At), strings.Compare(a.LeadID, b.LeadID))
	})
	if err := tx.Put(contracts.KeyContact(digits), contact); err != nil {
		return err
	}
	return tx.Put(key, contracts.SMS{
		Kind: contracts.SMSWelcome, To: lead.Phone, Body: body, Status: contracts.SMSQueued,
		QueuedAt: lead.CreatedAt, ExpiresAt: lead.CreatedAt.Add(l.opt.SMSMaxAge),
		Cause: lead.ID, LeadID: lead.ID,
	})
}

// asName gives a name that may stand in a text, and nothing for anything else: a
// link, a number, a sentence, <test lead: dummy data for first_name>.
func asName(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if utf8.RuneCountInString(s) > longestName || strings.Count(s, " ") > 3 || strings.IndexFunc(s, unicode.IsLetter) != 0 {
		return ""
	}
	runes := []rune(s)
	for i, r := range runes {
		switch {
		case unicode.IsLetter(r), unicode.Is(unicode.M, r), r == ' ', r == '-', r == '\'', r == '’':
		case r == '.' && (i+1 == len(runes) || runes[i+1] == ' '): // an initial; "evil.com" is none
		default:
			return ""
		}
	}
	return s
}
