//! A growing array whose elements never move.

use std::sync::OnceLock;

/// Elements of a page of the directory.
const PAGE: usize = 1024;

/// An array whose elements are allocated one by one when they are first needed, and stay where they
/// are. Readers take no lock. Growth copies nothing, and an empty directory takes 24 KiB.
pub(super) struct Directory<T> {
    pages: Box<[OnceLock<Page<T>>; PAGE]>,
}

type Page<T> = Box<[OnceLock<Box<T>>]>;

impl<T> Directory<T> {
    /// How many elements there can be.
    pub(super) const CAPACITY: usize = PAGE * PAGE;

    pub(super) fn new() -> Self {
        Self { pages: Box::new([const { OnceLock::new() }; PAGE]) }
    }

    pub(super) fn get(&self, at: usize) -> Option<&T> {
        let page = self.pages.get(at / PAGE)?.get()?;
        page[at % PAGE].get().map(|element| &**element)
    }

    /// The element; calls `make` if it does not exist. Returns `None` if `make` does, or past the
    /// capacity.
    pub(super) fn get_or_make(
        &self,
        at: usize,
        make: impl FnOnce() -> Option<Box<T>>,
    ) -> Option<&T> {
        let page = self.pages.get(at / PAGE)?;
        let page = page.get_or_init(|| (0..PAGE).map(|_| OnceLock::new()).collect());
        let element = &page[at % PAGE];
        if element.get().is_none() {
            // If another thread was first, its element counts.
            let _ = element.set(make()?);
        }
        element.get().map(|element| &**element)
    }

    /// The elements that exist, up to the first that does not.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        (0..Self::CAPACITY).map_while(|at| self.get(at))
    }

    /// Bytes that the directory takes without its elements.
    pub(super) fn memory(&self) -> usize {
        let pages = self.pages.iter().filter(|page| page.get().is_some()).count();
        size_of_val(&*self.pages) + pages * PAGE * size_of::<OnceLock<Box<T>>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_made_once_and_stay_where_they_are() {
        let directory = Directory::new();
        assert_eq!(directory.get(PAGE), None);
        let made: *const u32 = directory.get_or_make(PAGE, || Some(Box::new(1_u32))).unwrap();
        assert_eq!(directory.get_or_make(PAGE + 1, || None), None);
        assert_eq!(directory.get_or_make(PAGE + 1, || Some(Box::new(2))), Some(&2));
        assert_eq!(directory.get_or_make(PAGE, || Some(Box::new(3))), Some(&1));
        assert!(std::ptr::eq(made, directory.get(PAGE).unwrap()));
        assert_eq!(directory.get(Directory::<u32>::CAPACITY), None);
        assert_eq!(directory.get_or_make(Directory::<u32>::CAPACITY, || Some(Box::new(4))), None);
    }
}
