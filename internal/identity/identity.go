// Package identity knows who belongs together: which leads and which customers are
// one person. A customer is linked to a lead by the lead's id where Stripe's events
// name it, else by phone, else by e-mail.
//
// Leads come from Meta and customers from Stripe, in any order. So the links are
// never steps but functions of what is stored: whoever changes a lead or a customer
// puts it through SetLead or SetCustomer, which write it, list it in the contact and
// in the indexes, and compute the links and statuses of everyone that it touches.
// Lists only grow, and any order of the same calls ends in the same records.
package identity

import (
	"slices"
	"strings"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/state"
)

// SetLead stores a lead and all that follows from it: its contact and indexes, its
// customer_id, customer_status and status, and the lead_id of customers that it
// belongs to. lead holds the facts of its form; what is stored of contacted_at and
// opted_out_at stays, and a contact's opt-out covers the lead. A phone with a
// PhoneIssue links nobody. An error is that of the transaction, to be returned as
// it is.
func SetLead(tx *state.Tx, lead contracts.Lead) error {
	key := contracts.KeyLead(lead.ID)
	if err := tx.Need(append(keysOfLead(lead), key)...); err != nil {
		return err
	}
	stored, _, err := state.Get[contracts.Lead](tx, key)
	if err != nil {
		return err
	}
	lead.ContactedAt = first(lead.ContactedAt, stored.ContactedAt)
	lead.OptedOutAt = first(lead.OptedOutAt, stored.OptedOutAt)
	if p := phoneOf(lead); p != "" {
		if err := enter(tx, p, func(c *contracts.Contact) { c.Leads = with(c.Leads, lead.ID) }); err != nil {
			return err
		}
	}
	if k := contracts.KeyEmailIndex(lead.Email); k != "" {
		if err := index(tx, k, func(x *contracts.Index) { x.Leads = with(x.Leads, lead.ID) }); err != nil {
			return err
		}
	}
	if err := settle(tx, lead); err != nil {
		return err
	}
	known, err := customersOf(tx, lead)
	if err != nil {
		return err
	}
	for _, k := range known {
		leads, err := leadsOf(tx, k.Customer, "")
		if err != nil {
			return err
		}
		k.LeadID = leadID(k.Customer, leads)
		if err := tx.Put(contracts.KeyCustomer(k.ID), k.Customer); err != nil {
			return err
		}
	}
	return nil
}

// SetCustomer stores a customer and all that follows from it: its lead_id, its
// contacts and indexes, and the customer and the status of every lead that it may
// belong to. It is known under c.Emails, c.Phones (E.164) and c.LeadRef. A customer
// whose Since is zero is no client yet and changes no lead's status. An error is
// that of the transaction, to be returned as it is.
func SetCustomer(tx *state.Tx, c contracts.Customer) error {
	key := contracts.KeyCustomer(c.ID)
	if err := tx.Need(append(keysOfCustomer(c), key)...); err != nil {
		return err
	}
	stored, _, err := state.Get[contracts.Customer](tx, key)
	if err != nil {
		return err
	}
	for _, p := range c.Phones {
		if err := enter(tx, p, func(k *contracts.Contact) { k.Customers = with(k.Customers, c.ID) }); err != nil {
			return err
		}
	}
	for _, k := range keysOfCustomer(c) {
		if !strings.HasPrefix(k, "index.") {
			continue
		}
		if err := index(tx, k, func(x *contracts.Index) { x.Customers = with(x.Customers, c.ID) }); err != nil {
			return err
		}
	}
	leads, err := leadsOf(tx, c, stored.LeadRef)
	if err != nil {
		return err
	}
	c.LeadID = leadID(c, leads)
	if err := tx.Put(key, c); err != nil {
		return err
	}
	var keys []string
	for _, l := range leads {
		keys = append(keys, keysOfLead(l.Lead)...)
	}
	if err := tx.Need(keys...); err != nil {
		return err
	}
	for _, l := range leads {
		if err := settle(tx, l.Lead); err != nil {
			return err
		}
	}
	return nil
}

// How two are known to be one person, the surest way first.
const (
	byID = iota
	byPhone
	byEmail
)

type knownLead struct {
	contracts.Lead
	by int
}

type knownCustomer struct {
	contracts.Customer
	by int
}

// leadID picks a customer's lead: the one that Stripe's events name, else the
// earliest known by phone, else the earliest by e-mail. A name without its lead,
// which may come later or never, only counts where nobody else is known.
func leadID(c contracts.Customer, leads []knownLead) string {
	leads = slices.DeleteFunc(slices.Clone(leads), func(l knownLead) bool { return l.by == byID && l.ID != c.LeadRef })
	if len(leads) == 0 {
		return c.LeadRef
	}
	return slices.MinFunc(leads, func(a, b knownLead) int {
		if a.by != b.by {
			return a.by - b.by
		}
		if d := a.CreatedAt.Compare(b.CreatedAt); d != 0 {
			return d
		}
		return strings.Compare(a.ID, b.ID)
	}).ID
}

// settle computes a lead's customer and status, and stores it. A customer that names
// the lead outweighs all others. Among those known by phone and by e-mail one that
// has not churned comes first, since a person may come back as a new customer.
func settle(tx *state.Tx, lead contracts.Lead) error {
	known, err := customersOf(tx, lead)
	if err != nil {
		return err
	}
	known = slices.DeleteFunc(known, func(k knownCustomer) bool { return k.Since.IsZero() })
	lead.CustomerID, lead.CustomerStatus = "", ""
	if len(known) > 0 {
		best := slices.MinFunc(known, func(a, b knownCustomer) int {
			if named := truth(b.by == byID) - truth(a.by == byID); named != 0 {
				return named
			}
			if gone := truth(a.Status == contracts.CustomerChurned) - truth(b.Status == contracts.CustomerChurned); gone != 0 {
				return gone
			}
			if a.by != b.by {
				return a.by - b.by
			}
			return strings.Compare(a.ID, b.ID)
		})
		lead.CustomerID, lead.CustomerStatus = best.ID, best.Status
	}
	if p := phoneOf(lead); p != "" {
		contact, _, err := state.Get[contracts.Contact](tx, contracts.KeyContact(digits(p)))
		if err != nil {
			return err
		}
		lead.OptedOutAt = first(contact.OptedOutAt, lead.OptedOutAt)
	}
	lead.Settle()
	return tx.Put(contracts.KeyLead(lead.ID), lead)
}

// customersOf gives the customers that a lead may belong to, each once, with the
// surest way in which it is known.
func customersOf(tx *state.Tx, lead contracts.Lead) ([]knownCustomer, error) {
	if err := tx.Need(keysOfLead(lead)...); err != nil {
		return nil, err
	}
	named, _, err := state.Get[contracts.Index](tx, contracts.KeyLeadIndex(lead.ID))
	if err != nil {
		return nil, err
	}
	ids := [][]string{byID: named.Customers, byPhone: nil, byEmail: nil}
	if p := phoneOf(lead); p != "" {
		contact, _, err := state.Get[contracts.Contact](tx, contracts.KeyContact(digits(p)))
		if err != nil {
			return nil, err
		}
		ids[byPhone] = contact.Customers
	}
	if k := contracts.KeyEmailIndex(lead.Email); k != "" {
		x, _, err := state.Get[contracts.Index](tx, k)
		if err != nil {
			return nil, err
		}
		ids[byEmail] = x.Customers
	}
	if err := tx.Need(keys(contracts.KeyCustomer, ids)...); err != nil {
		return nil, err
	}
	var known []knownCustomer
	seen := map[string]bool{}
	for by, list := range ids {
		for _, id := range list {
			if seen[id] {
				continue
			}
			c, ok, err := state.Get[contracts.Customer](tx, contracts.KeyCustomer(id))
			if err != nil {
				return nil, err
			}
			// A customer may have named another lead since, but still share the phone.
			if ok && (by != byID || c.LeadRef == lead.ID) {
				seen[id] = true
				known = append(known, knownCustomer{c, by})
			}
		}
	}
	return known, nil
}

// leadsOf gives the leads that a customer may belong to, each once, with the surest
// way in which it is known, and the lead that it named before.
func leadsOf(tx *state.Tx, c contracts.Customer, before string) ([]knownLead, error) {
	if err := tx.Need(keysOfCustomer(c)...); err != nil {
		return nil, err
	}
	ids := [][]string{byID: nil, byPhone: nil, byEmail: nil}
	if c.LeadRef != "" {
		ids[byID] = append(ids[byID], c.LeadRef)
	}
	for _, p := range c.Phones {
		contact, _, err := state.Get[contracts.Contact](tx, contracts.KeyContact(digits(p)))
		if err != nil {
			return nil, err
		}
		ids[byPhone] = append(ids[byPhone], contact.Leads...)
	}
	for _, e := range c.Emails {
		x, _, err := state.Get[contracts.Index](tx, contracts.KeyEmailIndex(e))
		if err != nil {
			return nil, err
		}
		ids[byEmail] = append(ids[byEmail], x.Leads...)
	}
	if before != "" { // last: it counts as named only if nothing else links it
		ids = append(ids, []string{before})
	}
	if err := tx.Need(keys(contracts.KeyLead, ids)...); err != nil {
		return nil, err
	}
	var known []knownLead
	seen := map[string]bool{}
	for by, list := range ids {
		for _, id := range list {
			if seen[id] {
				continue
			}
			seen[id] = true
			l, ok, err := state.Get[contracts.Lead](tx, contracts.KeyLead(id))
			if err != nil {
				return nil, err
			}
			if ok {
				known = append(known, knownLead{l, by % (byEmail + 1)})
			}
		}
	}
	return known, nil
}

// enter changes a phone's contact.
func enter(tx *state.Tx, phone string, change func(*contracts.Contact)) error {
	key := contracts.KeyContact(digits(phone))
	c, _, err := state.Get[contracts.Contact](tx, key)
	if err != nil {
		return err
	}
	c.Phone = phone
	change(&c)
	return tx.Put(key, c)
}

// index changes an index.
func index(tx *state.Tx, key string, change func(*contracts.Index)) error {
	x, _, err := state.Get[contracts.Index](tx, key)
	if err != nil {
		return err
	}
	change(&x)
	return tx.Put(key, x)
}

// keysOfLead names where a lead's customers are listed.
func keysOfLead(lead contracts.Lead) []string {
	keys := []string{contracts.KeyLeadIndex(lead.ID)}
	if p := phoneOf(lead); p != "" {
		keys = append(keys, contracts.KeyContact(digits(p)))
	}
	if k := contracts.KeyEmailIndex(lead.Email); k != "" {
		keys = append(keys, k)
	}
	return keys
}

// keysOfCustomer names where a customer is listed.
func keysOfCustomer(c contracts.Customer) []string {
	var keys []string
	if c.LeadRef != "" {
		keys = append(keys, contracts.KeyLeadIndex(c.LeadRef))
	}
	for _, p := range c.Phones {
		keys = append(keys, contracts.KeyContact(digits(p)))
	}
	for _, e := range c.Emails {
		keys = append(keys, contracts.KeyEmailIndex(e))
	}
	return keys
}

func keys(name func(string) string, ids [][]string) []string {
	var all []string
	for _, list := range ids {
		for _, id := range list {
			all = append(all, name(id))
		}
	}
	return all
}

// phoneOf is the number by which a lead is known, E.164; "" without one.
func phoneOf(lead contracts.Lead) string {
	if lead.PhoneIssue != "" || !strings.HasPrefix(lead.Phone, "+") {
		return ""
	}
	return lead.Phone
}

func digits(e164 string) string { return strings.TrimPrefix(e164, "+") }

// with gives a sorted list that holds id.
func with(ids []string, id string) []string {
	i, ok := slices.BinarySearch(ids, id)
	if ok {
		return ids
	}
	return slices.Insert(slices.Clone(ids), i, id)
}

// first gives a unless it is zero.
func first(a, b time.Time) time.Time {
	if a.IsZero() {
		return b
	}
	return a
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}
